import LongspanKernels

extension KVCache {
  /// A cache as it was at some time. It holds on to the memory of that time, which the cache copies, layer by layer, before
  /// it writes to it.
  public struct Snapshot: Sendable {
    /// Tokens that had been read.
    public let count: Int
    /// What its keys and values look like.
    public let shape: KVShape
    fileprivate let rotary: RotaryEmbedding?
    fileprivate let policy: any KVCachePolicy
    fileprivate let phase: KVPhase
    fileprivate let lastCompaction: Int
    fileprivate let layers: [Layer]
  }

  /// Keeps what the cache holds now, to ``restore(_:)`` it later.
  ///
  /// - Complexity: O(layers); the next step after it copies the layers that it writes to.
  /// - Throws: ``/LongspanKernels/LongspanError`` within a step.
  public func snapshot() throws(LongspanError) -> Snapshot {
    try checkUsable()
    guard step == 0 else { throw LongspanError(.invalidArgument, "a step of \(step) tokens is under way") }
    return Snapshot(
      count: count, shape: shape, rotary: rotary, policy: policy, phase: phase,
      lastCompaction: lastCompaction,
      layers: layers)
  }

  /// Brings the cache, and the state of its policy, back to a snapshot of it or of one that it was forked from. The snapshot
  /// can be used again.
  ///
  /// - Throws: ``/LongspanKernels/LongspanError`` if the snapshot is of a cache of another shape or policy: what a
  ///   policy has kept holds for its own parameters only.
  public mutating func restore(_ snapshot: Snapshot) throws(LongspanError) {
    guard snapshot.shape == shape, snapshot.rotary == rotary,
      snapshot.policy.description == policy.description
    else {
      throw LongspanError(
        .invalidArgument,
        "a snapshot of a cache with policy \(snapshot.policy) cannot be restored in one with policy \(policy), or of "
          + "another shape")
    }
    count = snapshot.count
    policy = snapshot.policy
    phase = snapshot.phase
    lastCompaction = snapshot.lastCompaction
    layers = snapshot.layers
    step = 0
    isLost = false
    checkedBytes = 0
  }

  /// Another cache with the same tokens, which goes its own way: each copies a layer before it writes to it, if the other
  /// still holds it.
  public func fork() throws(LongspanError) -> KVCache {
    KVCache(try snapshot())
  }

  private init(_ snapshot: Snapshot) {
    shape = snapshot.shape
    rotary = snapshot.rotary
    count = snapshot.count
    policy = snapshot.policy
    phase = snapshot.phase
    lastCompaction = snapshot.lastCompaction
    layers = snapshot.layers
  }

  /// Forgets all but the first `tokens` tokens of the text.
  ///
  /// - Throws: ``/LongspanKernels/LongspanError`` if some of those were given up already, or slots were given up since:
  ///   what was kept then depends on tokens that would be forgotten. A snapshot from before can be restored.
  public mutating func truncate(to tokens: Int) throws(LongspanError) {
    try checkUsable()
    guard step == 0 else { throw LongspanError(.invalidArgument, "a step of \(step) tokens is under way") }
    guard tokens >= 0, tokens <= count else {
      throw LongspanError(.badIndex, "a cache of \(count) tokens cannot be cut to \(tokens)")
    }
    guard tokens >= lastCompaction else {
      throw LongspanError(
        .unsupported,
        "the cache was compressed when it had read \(lastCompaction) tokens and cannot go back to \(tokens): restore a "
          + "snapshot from before, or empty it")
    }
    for index in layers.indices {
      for head in 0..<shape.heads { layers[index].lengths[head] -= count - tokens }
    }
    count = tokens
  }

  /// Empties the cache for another text. Its memory stays reserved.
  public mutating func removeAll() {
    for index in layers.indices {
      layers[index].lengths = Array(repeating: 0, count: shape.heads)
      layers[index].appended = 0
      layers[index].hasPositions = false
    }
    count = 0
    step = 0
    lastCompaction = 0
    phase = .decode
    isLost = false
    policy.reset()
  }
}
