import Longspan
import LongspanKernels

/// Parts of a forward pass: the embedding, a range of layers over a cache of their own, and the final norm.
extension LlamaModel {
  /// An empty cache of a range of layers, for ``run(_:on:_:_:_:_:_:)``.
  ///
  /// - Parameters:
  ///   - policy: decides what is kept; layers that it names are the model's.
  ///   - capacity: tokens to reserve address space for.
  /// - Throws: ``/LongspanKernels/LongspanError`` if the policy does not go with the model, or there is no address space.
  func makeCache(
    of layers: Range<Int>, policy: any KVCachePolicy, elementType: ElementType, capacity: Int
  ) throws(LongspanError) -> KVCache {
    let c = configuration
    try policy.check(
      KVShape(
        layers: c.layers, heads: c.keyValueHeads, headDimension: c.headDimension, elementType: elementType))
    return try KVCache(
      KVShape(
        layers: layers.count, firstLayer: layers.lowerBound, heads: c.keyValueHeads,
        headDimension: c.headDimension, elementType: elementType),
      policy: policy.policy(forLayers: layers), rotary: rotary, capacity: capacity)
  }

  /// Throws unless a cache is one of these layers.
  func check(_ cache: borrowing KVCache, holds layers: Range<Int>) throws(LongspanError) {
    let c = configuration
    let shape = cache.shape
    guard shape.layers == layers.count, shape.firstLayer == layers.lowerBound,
      shape.heads == c.keyValueHeads, shape.headDimension == c.headDimension
    else {
      throw LongspanError(
        .invalidArgument,
        "a cache of \(shape.layers) layers from \(shape.firstLayer) on and \(shape.heads) x "
          + "\(shape.headDimension) is not of this model's shape"
      )
    }
  }

  /// The residual stream before the first layer, `[T, hidden]`.
  ///
  /// - Parameter tokens: ids below ``vocabularySize``.
  func embeddings(of tokens: [Int32]) throws(LongspanError) -> AlignedBuffer<Float> {
    var residual = try AlignedBuffer<Float>(count: tokens.count * configuration.hidden)
    var embedded = residual.mutableSpan
    KernelProfile.setTag(-1)
    try context.embed(tokens.span, table: weights.embedding, into: &embedded)
    return residual
  }

  /// Runs consecutive layers on the residual stream of `count` tokens, in a step of as many that the cache has begun and that
  /// the caller commits or abandons.
  ///
  /// - Parameters:
  ///   - layers: of the model, at least one.
  ///   - residual: `[count, hidden]`; what the layers add is added to it.
  ///   - cache: of these layers: its layer 0 is the first of them. Positions follow those that it holds.
  ///   - step: activations of `count` tokens.
  ///   - observe: sees the residual stream after each layer.
  func run(
    _ layers: Range<Int>, on residual: inout AlignedBuffer<Float>, _ count: Int, _ cache: inout KVCache,
    _ step: inout Step, _ workspace: inout Workspace, _ observe: ((Int, Span<Float>) -> Void)? = nil
  ) throws(LongspanError) {
    var rotary = try Rotary(first: cache.nextPosition(layer: 0), count: count, inverseFrequencies)
    for index in layers {
      KernelProfile.setTag(index)
      let cached = index - layers.lowerBound
      let first = cache.nextPosition(layer: cached)
      if first != rotary.first { rotary = try Rotary(first: first, count: count, inverseFrequencies) }
      let layer = weights.layers[index]
      try attend(layer, cached, count, rotary.table, &step, &residual, &cache, &workspace)
      try feedForward(layer, count, &step, &residual, &workspace)
      observe?(index, residual.span)
    }
  }

  /// The hidden states of `count` tokens, `[count, hidden]`: the final norm of the residual stream after the last layer.
  func normalizeOutput(
    _ residual: borrowing AlignedBuffer<Float>, _ count: Int, _ step: consuming Step
  ) throws(LongspanError) -> AlignedBuffer<Float> {
    KernelProfile.setTag(configuration.layers)
    try normalize(residual, weights.outputNorm, count, into: &step.normed)
    return step.takeNormed()
  }
}
