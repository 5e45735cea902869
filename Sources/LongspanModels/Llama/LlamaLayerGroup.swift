import Longspan
import LongspanKernels

/// Consecutive layers of a model with a cache of their own, which may have read fewer tokens than that of other layers.
final class LlamaLayerGroup {
  let model: LlamaModel
  /// Of the model, at least one.
  let layers: Range<Int>
  private(set) var cache: KVCache

  /// - Returns: `nil` for no layers.
  init?(_ model: LlamaModel, _ layers: Range<Int>, _ options: SequenceOptions) throws(LongspanError) {
    guard !layers.isEmpty else { return nil }
    let capacity = options.policy.policy(forLayers: layers).slots(afterReading: options.capacity, layer: 0)
    self.model = model
    self.layers = layers
    cache = try model.makeCache(
      of: layers, policy: options.policy, elementType: options.cacheType, capacity: capacity)
  }

  /// Begins a step of `rows` tokens.
  func begin(_ rows: Int) throws(LongspanError) { try cache.beginStep(rows) }

  /// Runs the layers on the residual stream of the tokens of the step that was begun.
  func run(
    on residual: inout AlignedBuffer<Float>, _ rows: Int, _ step: inout LlamaModel.Step,
    _ workspace: inout Workspace
  ) throws(LongspanError) {
    try model.run(layers, on: &residual, rows, &cache, &step, &workspace)
  }

  /// Makes the step's tokens part of the cache.
  func commit(_ workspace: inout Workspace) throws(LongspanError) {
    try cache.commitStep(on: model.context, workspace: &workspace)
  }

  /// Takes back a step, committed or not, after which the group has read `count` tokens again.
  ///
  /// - Throws: ``/LongspanKernels/LongspanError`` if slots were given up since, so that this cannot be done.
  func takeBack(to count: Int) throws(LongspanError) {
    cache.abandonStep()
    try cache.truncate(to: count)
  }

  func beginPrefill() { cache.beginPrefill() }

  func endPrefill(_ workspace: inout Workspace) throws(LongspanError) {
    try cache.endPrefill(on: model.context, workspace: &workspace)
  }

  func removeAll() { cache.removeAll() }

  func requireMemory(forReading tokens: Int) throws(LongspanError) {
    try cache.requireMemory(forReading: tokens)
  }

  func restore(_ snapshot: KVCache.Snapshot) throws(LongspanError) { try cache.restore(snapshot) }
}
