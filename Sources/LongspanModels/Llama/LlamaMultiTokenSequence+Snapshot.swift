import Longspan
import LongspanKernels

extension LlamaMultiTokenSequence {
  /// A sequence as it was at some time, within a cycle or not. It holds on to the memory of that time, as
  /// ``/Longspan/KVCache/Snapshot`` does.
  public struct Snapshot: Sendable {
    /// Tokens that had been read.
    public let count: Int
    /// How tokens are decoded.
    public let decoding: MultiTokenDecoding
    /// The cache policy, as `--kv` takes it.
    public let policyName: String
    fileprivate let caches: [KVCache.Snapshot]
    fileprivate let skipped: [Float]
    fileprivate let origin: Int
  }

  /// Keeps what was read, to ``restore(_:)`` it later: a prefix that several texts share is read once.
  ///
  /// - Throws: ``/LongspanKernels/LongspanError`` if the sequence lost tokens in a step that failed.
  public func snapshot() throws(LongspanError) -> Snapshot {
    try checkUsable()
    var caches: [KVCache.Snapshot] = []
    for group in groups { caches.append(try group.cache.snapshot()) }
    return Snapshot(
      count: count, decoding: decoding, policyName: policyName, caches: caches, skipped: skipped,
      origin: origin)
  }

  /// Brings back a snapshot of this sequence or another of the model, which can be used again.
  ///
  /// - Throws: ``/LongspanKernels/LongspanError`` if the snapshot is of another decoding, cache policy or cache type;
  ///   the sequence is as it was then.
  public func restore(_ snapshot: Snapshot) throws(LongspanError) {
    guard snapshot.decoding == decoding else {
      throw LongspanError(
        .invalidArgument,
        "a snapshot of a sequence with \(snapshot.decoding) cannot be restored in one with \(decoding)")
    }
    guard snapshot.policyName == policyName else {
      throw LongspanError(
        .invalidArgument,
        "a snapshot of a sequence with cache policy \(snapshot.policyName) cannot be restored in one with \(policyName)"
      )
    }
    // what may still differ, the cache type or the model's shape, the first of the caches refuses
    for (group, cache) in zip(groups, snapshot.caches) { try group.restore(cache) }
    skipped = snapshot.skipped
    origin = snapshot.origin
    isLost = false
  }
}
