import LongspanKernels

/// What positions the keys of a cache have.
public enum KVPositions: String, Sendable, CaseIterable {
  /// Those of their tokens in the text. New tokens count on from the text's length.
  case absolute
  /// Those of their slots: keys turn to new positions at each compaction, and new tokens count on from the slots. A text
  /// far longer than the model was trained on then still has positions that it knows.
  case renumbered
}

/// What the steps of a model are part of.
public enum KVPhase: Sendable, Equatable {
  /// A prompt is being read; ``KVCache/endPrefill(on:workspace:)`` will follow.
  case prefill
  /// Anything else: generation, or a text that is scored as it is read.
  case decode
}

/// Which keys of a layer the queries of a step see.
public enum KVVisibility: Sendable, Equatable {
  /// Every key up to their own.
  case all
  /// Those that a lag mask lets them see.
  case lagWindows(LagWindows)
}

/// Decides what a ``KVCache`` keeps.
///
/// A policy is a value with the state of one sequence. The cache calls it at each event and hands it itself: a policy asks
/// the cache for scores (``KVCache/lagScores(layer:from:lag:windows:valueWeight:on:workspace:)``), turns them into lists of
/// slots, and has the cache keep those (``KVCache/compact(layer:keeping:from:tail:on:)``). A policy never sees memory.
public protocol KVCachePolicy: Sendable, CustomStringConvertible {
  /// How kept keys are positioned.
  var positions: KVPositions { get }

  /// Throws unless it can run on caches of this shape.
  func check(_ shape: KVShape) throws(LongspanError)

  /// This policy in a cache that holds only these layers of a model, before anything was read. The cache counts its layers
  /// from 0; those that the policy names are the model's, and go down by the range's lower bound.
  ///
  /// - Parameter layers: of a model whose shape the policy was checked with.
  func policy(forLayers layers: Range<Int>) -> any KVCachePolicy

  /// The most tokens, at least 1 and at most `limit`, that a model may read in its next step.
  func stepLength(limit: Int, in cache: borrowing KVCache) -> Int

  /// Slots that a layer has once a text of `tokens` tokens has been read.
  func slots(afterReading tokens: Int, layer: Int) -> Int

  /// The keys and values of a step are in a layer's slots, and attention comes next.
  ///
  /// - Returns: what the step's queries see of this layer.
  mutating func didAppend(
    layer: Int, to cache: inout KVCache, on context: KernelContext, workspace: inout Workspace
  ) throws(LongspanError) -> KVVisibility

  /// Every layer has had its attention. The step's tokens are part of the cache.
  mutating func didAttend(
    in cache: inout KVCache, on context: KernelContext, workspace: inout Workspace
  ) throws(LongspanError)

  /// A prompt has been read whole.
  mutating func didEndPrefill(
    in cache: inout KVCache, on context: KernelContext, workspace: inout Workspace
  ) throws(LongspanError)

  /// The cache was emptied.
  mutating func reset()
}

extension KVCachePolicy {
  /// The policy itself, which is right where it treats all layers alike.
  public func policy(forLayers layers: Range<Int>) -> any KVCachePolicy { self }
}

/// Keeps every token.
public struct DensePolicy: KVCachePolicy {
  /// The policy; it has no options.
  public init() {}

  public var description: String { "dense" }
  /// Absolute: nothing moves.
  public var positions: KVPositions { .absolute }
  public func check(_ shape: KVShape) throws(LongspanError) {}
  public func stepLength(limit: Int, in cache: borrowing KVCache) -> Int { limit }
  public func slots(afterReading tokens: Int, layer: Int) -> Int { tokens }
  public mutating func didAppend(
    layer: Int, to cache: inout KVCache, on context: KernelContext, workspace: inout Workspace
  ) throws(LongspanError) -> KVVisibility { .all }
  public mutating func didAttend(
    in cache: inout KVCache, on context: KernelContext, workspace: inout Workspace
  ) throws(LongspanError) {}
  public mutating func didEndPrefill(
    in cache: inout KVCache, on context: KernelContext, workspace: inout Workspace
  ) throws(LongspanError) {}
  public mutating func reset() {}
}
