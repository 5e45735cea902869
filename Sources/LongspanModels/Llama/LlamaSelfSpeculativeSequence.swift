import Longspan
import LongspanKernels

/// A text that a Llama-type model is reading by ordinary passes, and drafts for by the schedule of DMTD
/// (``/Longspan/SelfSpeculativeDrafting``).
///
/// Each of the three groups of layers has a cache of its own. Between a draft and the pass that checks it, the early and
/// thinking layers have read one token more than the late ones, the head of the draft: what they gave for it is kept for that
/// pass. What the late layers, and the early ones after the head, had read to draft is forgotten, because a late layer's keys
/// and values are others under its ordinary input.
public final class LlamaSelfSpeculativeSequence: SelfDraftingSequence {
  /// The model that reads.
  public let model: LlamaModel
  /// How the sequence drafts.
  public let drafting: SelfSpeculativeDrafting
  public let policyName: String
  private let early: LlamaLayerGroup?
  private let thinking: LlamaLayerGroup
  private let late: LlamaLayerGroup
  private var head: Head?

  /// A token that the early and thinking layers have read ahead of the late ones.
  private struct Head {
    let token: Int32
    /// What the thinking layers gave, `[hidden]`.
    let output: [Float]
  }

  init(
    _ model: LlamaModel, _ drafting: SelfSpeculativeDrafting, _ options: SequenceOptions
  ) throws(LongspanError) {
    try options.policy.requireTruncation()
    let groups = try drafting.layerGroups(of: model.layerCount)
    let early = try LlamaLayerGroup(model, groups.early, options)
    guard let thinking = try LlamaLayerGroup(model, groups.thinking, options),
      let late = try LlamaLayerGroup(model, groups.late, options)
    else { throw LongspanError(.invalidArgument, "\(drafting): no layer is left to skip") }
    self.model = model
    self.drafting = drafting
    policyName = options.policy.description
    self.early = early
    self.thinking = thinking
    self.late = late
  }

  /// All that there are, the late one last.
  var groups: [LlamaLayerGroup] { [early, thinking, late].compactMap { $0 } }
  /// Those below the late layers.
  private var lower: [LlamaLayerGroup] { [early, thinking].compactMap { $0 } }

  public var count: Int { late.cache.count }
  public var byteCount: Int { groups.reduce(0) { $0 + $1.cache.byteCount } }
  public var slots: Int { late.cache.mostSlots }

  public func begin(expecting tokens: Int?) {
    for group in groups { group.removeAll() }
    head = nil
  }

  public func stepLength(limit: Int) -> Int { late.cache.stepLength(limit: limit) }

  public func requireMemory(forReading tokens: Int) throws(LongspanError) {
    var bytes = 0
    for group in groups { bytes += try group.cache.memoryNeeded(forReading: tokens) }
    try SystemMemory.require(bytes, for: "the keys and values of \(tokens) more tokens")
    // each cache then knows that it need not ask again
    for group in groups { try group.requireMemory(forReading: tokens) }
  }

  public func requireTruncation() throws(LongspanError) {}

  public func truncate(to tokens: Int) throws(LongspanError) {
    let count = count
    guard tokens >= 0, tokens <= count else {
      throw LongspanError(.badIndex, "a cache of \(count) tokens cannot be cut to \(tokens)")
    }
    try takeBack(to: tokens)
  }

  /// Brings all groups to the text's first `tokens` tokens, whatever each has read of more.
  private func takeBack(to tokens: Int) throws(LongspanError) {
    head = nil
    for group in groups { try group.takeBack(to: tokens) }
  }

  public func read(
    _ tokens: [Int32], workspace: inout Workspace
  ) throws(LongspanError) -> AlignedBuffer<Float> {
    guard let first = tokens.first else {
      throw LongspanError(.invalidArgument, "a model cannot read 0 tokens")
    }
    let count = count
    if let head, head.token != first { try takeBack(to: count) }
    do throws(LongspanError) {
      var residual = try lateInput(of: tokens, &workspace)
      head = nil
      var step = try LlamaModel.Step(configuration: model.configuration, count: tokens.count)
      try run(late, on: &residual, tokens.count, &step, &workspace)
      return try model.normalizeOutput(residual, tokens.count, step)
    } catch {
      try takeBack(to: count)
      throw error
    }
  }

  /// The late layers' ordinary input, `[T, hidden]`: what the layers before them give, which the head's has been.
  private func lateInput(
    of tokens: [Int32], _ workspace: inout Workspace
  ) throws(LongspanError) -> AlignedBuffer<Float> {
    guard let head else { return try runLower(tokens, &workspace) }
    var whole = try AlignedBuffer<Float>(count: tokens.count * model.hiddenSize)
    var target = whole.mutableSpan
    for index in head.output.indices { target[index] = head.output[index] }
    if tokens.count > 1 {
      let rest = try runLower(Array(tokens.dropFirst()), &workspace)
      let source = rest.span
      for index in source.indices { target[head.output.count + index] = source[index] }
    }
    return whole
  }

  /// Reads tokens by the early and thinking layers, and returns the residual stream after them.
  private func runLower(
    _ tokens: [Int32], _ workspace: inout Workspace
  ) throws(LongspanError) -> AlignedBuffer<Float> {
    var residual = try model.embeddings(of: tokens)
    var step = try LlamaModel.Step(configuration: model.configuration, count: tokens.count)
    for group in lower { try run(group, on: &residual, tokens.count, &step, &workspace) }
    return residual
  }

  private func run(
    _ group: LlamaLayerGroup, on residual: inout AlignedBuffer<Float>, _ count: Int,
    _ step: inout LlamaModel.Step, _ workspace: inout Workspace
  ) throws(LongspanError) {
    try group.begin(count)
    try group.run(on: &residual, count, &step, &workspace)
    try group.commit(&workspace)
  }

  public func readPrompt(
    _ tokens: [Int32], chunk: Int, workspace: inout Workspace, progress: ProgressHandler?
  ) throws(LongspanError) -> AlignedBuffer<Float> {
    guard !tokens.isEmpty else { throw LongspanError(.invalidText, "the prompt is empty") }
    guard chunk > 0 else { throw LongspanError(.invalidArgument, "chunk: \(chunk) is below 1") }
    var first = 0
    while true {
      let end = first + stepLength(limit: min(chunk, tokens.count - first))
      let hidden = try read(Array(tokens[first..<end]), workspace: &workspace)
      try report(ProgressUpdate(stage: "reading", completed: end, total: tokens.count), to: progress)
      if end == tokens.count {
        return try model.logits(of: hidden, rows: end - first - 1..<end - first, workspace: &workspace)
      }
      first = end
    }
  }

  public func draft(
    after token: Int32, limit: Int, workspace: inout Workspace
  ) throws(LongspanError) -> [Int32] {
    let length = min(limit, drafting.cycle)
    guard length > 0 else { return [] }
    let count = count
    try takeBack(to: count)
    do throws(LongspanError) {
      var step = try LlamaModel.Step(configuration: model.configuration, count: 1)
      // E(x_n), then E(d_i): the late layers' input but for the head's thinking output
      var residual = try earlyOutput(of: token, &step, &workspace)
      head = try think(token, after: residual, &step, &workspace)
      if let head { add(head.output, to: &residual) }
      var draft: [Int32] = []
      while true {
        try run(late, on: &residual, 1, &step, &workspace)
        draft.append(try likeliest(after: residual, &workspace))
        if draft.count == length { break }
        residual = try earlyOutput(of: draft[draft.count - 1], &step, &workspace)
      }
      try late.takeBack(to: count)
      try early?.takeBack(to: count + 1)
      return draft
    } catch {
      try takeBack(to: count)
      throw error
    }
  }

  private func earlyOutput(
    of token: Int32, _ step: inout LlamaModel.Step, _ workspace: inout Workspace
  ) throws(LongspanError) -> AlignedBuffer<Float> {
    var residual = try model.embeddings(of: [token])
    if let early { try run(early, on: &residual, 1, &step, &workspace) }
    return residual
  }

  private func think(
    _ token: Int32, after early: borrowing AlignedBuffer<Float>, _ step: inout LlamaModel.Step,
    _ workspace: inout Workspace
  ) throws(LongspanError) -> Head {
    var residual = try AlignedBuffer<Float>(count: early.count)
    var target = residual.mutableSpan
    for index in 0..<early.count { target[index] = early.span[index] }
    try run(thinking, on: &residual, 1, &step, &workspace)
    let span = residual.span
    return Head(token: token, output: span.indices.map { span[$0] })
  }

  private func add(_ terms: [Float], to residual: inout AlignedBuffer<Float>) {
    var sums = residual.mutableSpan
    for index in terms.indices { sums[index] += terms[index] }
  }

  /// The token of largest logit after the last layer's output.
  private func likeliest(
    after residual: borrowing AlignedBuffer<Float>, _ workspace: inout Workspace
  ) throws(LongspanError) -> Int32 {
    let step = try LlamaModel.Step(configuration: model.configuration, count: 1)
    let hidden = try model.normalizeOutput(residual, 1, step)
    let logits = try model.logits(of: hidden, rows: 0..<1, workspace: &workspace)
    var sampler = try Sampler(options: .greedy, seed: 0)
    return try sampler.sample(logits.span)
  }
}
