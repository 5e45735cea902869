import Longspan
import LongspanKernels

extension LlamaSelfSpeculativeSequence {
  /// A sequence as it was at some time. It holds on to the memory of that time, as ``/Longspan/KVCache/Snapshot`` does.
  public struct Snapshot: Sendable {
    /// Tokens that had been read.
    public let count: Int
    /// How the sequence drafts.
    public let drafting: SelfSpeculativeDrafting
    fileprivate let caches: [KVCache.Snapshot]
  }

  /// Keeps what was read, to ``restore(_:)`` it later: a prefix that several texts share is read once.
  public func snapshot() throws(LongspanError) -> Snapshot {
    try truncate(to: count)
    var caches: [KVCache.Snapshot] = []
    for group in groups { caches.append(try group.cache.snapshot()) }
    return Snapshot(count: count, drafting: drafting, caches: caches)
  }

  /// Brings back a snapshot of this sequence or another of the model, which can be used again.
  ///
  /// - Throws: ``/LongspanKernels/LongspanError`` if the snapshot is of other drafting or another cache type; the
  ///   sequence is as it was then.
  public func restore(_ snapshot: Snapshot) throws(LongspanError) {
    guard snapshot.drafting == drafting else {
      throw LongspanError(
        .invalidArgument,
        "a snapshot of a sequence with \(snapshot.drafting) cannot be restored in one with \(drafting)")
    }
    try truncate(to: count)
    // what may still differ, the cache type or the model's shape, the first of the caches refuses
    for (group, cache) in zip(groups, snapshot.caches) { try group.restore(cache) }
  }
}
