import Longspan
import LongspanKernels

extension LlamaModel {
  /// Reads tokens after those in the cache and returns their hidden states after the final norm, `[T, hidden]`.
  ///
  /// The tokens' positions follow those of the cache, which is unchanged if this throws, unless its policy had begun to
  /// give up slots; it says so then.
  ///
  /// In a ``/LongspanKernels/KernelProfile``, calls have the tag of their layer: -1 for the embedding,
  /// ``LlamaConfiguration/layers`` for the final norm and the logits.
  ///
  /// - Parameters:
  ///   - tokens: ids below ``vocabularySize``, at least one.
  ///   - cache: grows by the tokens.
  ///   - workspace: scratch, reused between calls.
  public func hiddenStates(
    of tokens: [Int32], cache: inout KVCache, workspace: inout Workspace
  ) throws(LongspanError) -> AlignedBuffer<Float> {
    try hiddenStates(of: tokens, cache: &cache, workspace: &workspace, observe: nil)
  }

  /// `observe` sees the residual stream after the embedding (-1) and after each layer.
  func hiddenStates(
    of tokens: [Int32], cache: inout KVCache, workspace: inout Workspace,
    observe: ((Int, Span<Float>) -> Void)?
  ) throws(LongspanError) -> AlignedBuffer<Float> {
    let c = configuration
    let count = tokens.count
    guard count > 0 else { throw LongspanError(.invalidArgument, "a model cannot read 0 tokens") }
    try check(cache, holds: 0..<c.layers)
    try cache.beginStep(count)
    do throws(LongspanError) {
      let states = try run(tokens, &cache, &workspace, observe)
      try cache.commitStep(on: context, workspace: &workspace)
      return states
    } catch {
      cache.abandonStep()
      throw error
    }
  }

  /// Runs a step that the cache has begun.
  private func run(
    _ tokens: [Int32], _ cache: inout KVCache, _ workspace: inout Workspace,
    _ observe: ((Int, Span<Float>) -> Void)?
  ) throws(LongspanError) -> AlignedBuffer<Float> {
    var residual = try embeddings(of: tokens)
    observe?(-1, residual.span)
    var step = try Step(configuration: configuration, count: tokens.count)
    try run(0..<configuration.layers, on: &residual, tokens.count, &cache, &step, &workspace, observe)
    return try normalizeOutput(residual, tokens.count, step)
  }

  /// The angles of consecutive positions. Layers differ in theirs only where a policy renumbers some and skips others.
  struct Rotary: ~Copyable {
    let first: Int
    let table: RotaryTable

    init(first: Int, count: Int, _ inverseFrequencies: [Float]) throws(LongspanError) {
      self.first = first
      table = try RotaryTable(
        positions: (first..<first + count).map(Int64.init), inverseFrequencies: inverseFrequencies)
    }
  }

  /// The activations of one step, allocated together and reused by every layer.
  struct Step: ~Copyable {
    var normed: AlignedBuffer<Float>
    var query: AlignedBuffer<Float>
    var rotated: AlignedBuffer<Float>
    var keys: AlignedBuffer<Float>
    var values: AlignedBuffer<Float>
    var activated: AlignedBuffer<Float>

    /// Tokens whose activations need not be checked against free memory, which takes longer than such a step's kernels.
    private static let uncheckedTokens = 64

    // Every allocation may throw, so none is stored before all are made.
    init(configuration c: LlamaConfiguration, count: Int) throws(LongspanError) {
      let width = 2 * c.hidden + 2 * (c.heads + c.keyValueHeads) * c.headDimension + c.feedForward
      let (bytes, overflow) = count.multipliedReportingOverflow(by: width * MemoryLayout<Float>.stride)
      if overflow || count > Step.uncheckedTokens {
        try SystemMemory.require(
          overflow ? Int.max : bytes, for: "the activations of \(count) tokens at once")
      }
      let normed = try AlignedBuffer<Float>(count: count * c.hidden)
      let query = try AlignedBuffer<Float>(count: count * c.heads * c.headDimension)
      let rotated = try AlignedBuffer<Float>(count: count * c.heads * c.headDimension)
      let keys = try AlignedBuffer<Float>(count: count * c.keyValueHeads * c.headDimension)
      let values = try AlignedBuffer<Float>(count: count * c.keyValueHeads * c.headDimension)
      let activated = try AlignedBuffer<Float>(count: count * c.feedForward)
      self.normed = normed
      self.query = query
      self.rotated = rotated
      self.keys = keys
      self.values = values
      self.activated = activated
    }

    consuming func takeNormed() -> AlignedBuffer<Float> { normed }
  }

  /// residual += Wo attention(norm(residual)); the new keys and values go into the cache's next slots.
  func attend(
    _ layer: LlamaWeights.Layer, _ index: Int, _ count: Int, _ rotary: borrowing RotaryTable,
    _ step: inout Step,
    _ residual: inout AlignedBuffer<Float>, _ cache: inout KVCache, _ workspace: inout Workspace
  ) throws(LongspanError) {
    let c = configuration
    try normalize(residual, layer.attentionNorm, count, into: &step.normed)

    try project(step.normed, layer, count, &workspace, &step.query, &step.keys, &step.values)
    try cache.append(
      layer: index,
      keys: TensorView(step.keys.span, tokens: count, heads: c.keyValueHeads, columns: c.headDimension),
      values: TensorView(step.values.span, tokens: count, heads: c.keyValueHeads, columns: c.headDimension),
      rotatedBy: rotary, layout: .interleaved, on: context)

    try rotate(step.query, count, rotary, into: &step.rotated)
    // the unrotated queries are done with, so their buffer takes the attention output
    try attend(step.rotated, index, count, &cache, &workspace, into: &step.query)
    try multiply(step.query, layer.attentionOutput, count, accumulating: true, &workspace, into: &residual)
  }

  /// residual += Wdown (silu(Wgate norm(residual)) * Wup norm(residual))
  func feedForward(
    _ layer: LlamaWeights.Layer, _ count: Int, _ step: inout Step, _ residual: inout AlignedBuffer<Float>,
    _ workspace: inout Workspace
  ) throws(LongspanError) {
    try normalize(residual, layer.feedForwardNorm, count, into: &step.normed)
    try gate(step.normed, layer, count, &workspace, into: &step.activated)
    try multiply(step.activated, layer.down, count, accumulating: true, &workspace, into: &residual)
  }

  // One kernel call each. They take buffers rather than spans because spans of two fields of one owner cannot be
  // open at once.

  func normalize(
    _ input: borrowing AlignedBuffer<Float>, _ weight: [Float], _ count: Int,
    into output: inout AlignedBuffer<Float>
  ) throws(LongspanError) {
    var normed = output.mutableSpan
    try context.rmsNorm(
      TensorView(input.span, tokens: count, columns: configuration.hidden), weight: weight.span,
      epsilon: configuration.normEpsilon, into: &normed)
  }

  private func multiply(
    _ input: borrowing AlignedBuffer<Float>, _ weights: LinearWeights, _ count: Int,
    accumulating: Bool = false,
    _ workspace: inout Workspace, into output: inout AlignedBuffer<Float>
  ) throws(LongspanError) {
    var product = output.mutableSpan
    try context.linear(
      TensorView(input.span, tokens: count, columns: weights.columns), weights, accumulating: accumulating,
      workspace: &workspace, into: &product)
  }

  private func rotate(
    _ input: borrowing AlignedBuffer<Float>, _ count: Int, _ rotary: borrowing RotaryTable,
    into output: inout AlignedBuffer<Float>
  ) throws(LongspanError) {
    let c = configuration
    var span = output.mutableSpan
    var rotated = try MutableTensorView(
      span.mutableBytes, TensorLayout(tokens: count, heads: c.heads, columns: c.headDimension))
    try context.rotate(
      TensorView(input.span, tokens: count, heads: c.heads, columns: c.headDimension), by: rotary,
      layout: .interleaved, into: &rotated)
  }

  private func attend(
    _ queries: borrowing AlignedBuffer<Float>, _ layer: Int, _ count: Int, _ cache: inout KVCache,
    _ workspace: inout Workspace, into output: inout AlignedBuffer<Float>
  ) throws(LongspanError) {
    let c = configuration
    var attended = output.mutableSpan
    try cache.attend(
      layer: layer,
      queries: TensorView(queries.span, tokens: count, heads: c.heads, columns: c.headDimension),
      on: context, workspace: &workspace, into: &attended)
  }

  private func project(
    _ input: borrowing AlignedBuffer<Float>, _ layer: LlamaWeights.Layer, _ count: Int,
    _ workspace: inout Workspace, _ query: inout AlignedBuffer<Float>, _ keys: inout AlignedBuffer<Float>,
    _ values: inout AlignedBuffer<Float>
  ) throws(LongspanError) {
    var querySpan = query.mutableSpan
    var keySpan = keys.mutableSpan
    var valueSpan = values.mutableSpan
    try context.linear(
      TensorView(input.span, tokens: count, columns: configuration.hidden), workspace: &workspace,
      layer.query, into: &querySpan, layer.key, into: &keySpan, layer.value, into: &valueSpan)
  }

  private func gate(
    _ input: borrowing AlignedBuffer<Float>, _ layer: LlamaWeights.Layer, _ count: Int,
    _ workspace: inout Workspace, into output: inout AlignedBuffer<Float>
  ) throws(LongspanError) {
    var activated = output.mutableSpan
    try context.gatedLinear(
      TensorView(input.span, tokens: count, columns: configuration.hidden), gate: layer.gate, up: layer.up,
      activation: .silu, workspace: &workspace, into: &activated)
  }

  /// Reads a prompt in chunks and returns the logits after its last token.
  ///
  /// - Parameters:
  ///   - tokens: at least one.
  ///   - chunk: tokens read at once: memory for activations grows with it.
  ///   - progress: called after each chunk.
  /// - Throws: ``/LongspanKernels/LongspanError``; the cache keeps the chunks that were read, and is still reading its
  ///   prompt.
  public func prefill(
    _ tokens: [Int32], into cache: inout KVCache, chunk: Int = 512, workspace: inout Workspace,
    progress: ProgressHandler? = nil
  ) throws(LongspanError) -> AlignedBuffer<Float> {
    guard !tokens.isEmpty else { throw LongspanError(.invalidText, "the prompt is empty") }
    guard chunk > 0 else { throw LongspanError(.invalidArgument, "chunk: \(chunk) is below 1") }
    cache.beginPrefill()
    var first = 0
    while true {
      let end = first + cache.stepLength(limit: min(chunk, tokens.count - first))
      let hidden = try hiddenStates(of: Array(tokens[first..<end]), cache: &cache, workspace: &workspace)
      try report(ProgressUpdate(stage: "reading", completed: end, total: tokens.count), to: progress)
      if end == tokens.count {
        try cache.endPrefill(on: context, workspace: &workspace)
        return try logits(of: hidden, rows: end - first - 1..<end - first, workspace: &workspace)
      }
      first = end
    }
  }
}
