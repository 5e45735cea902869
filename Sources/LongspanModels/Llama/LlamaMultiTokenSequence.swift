import Longspan
import LongspanKernels

/// A text that a Llama-type model reads and generates by direct multi-token decoding (``/Longspan/MultiTokenDecoding``).
///
/// Each of the three groups of layers has a cache of its own: those of the early and late layers hold every token read, that
/// of the thinking layers lags behind by the tokens of an unfinished cycle, at most cycle - 1. What the early layers gave for
/// those is kept until the next head, or the next prompt, takes them along in one pass. So a sequence may stop anywhere in
/// a cycle and go on later.
///
/// - ``readPrompt(_:chunk:workspace:progress:)`` begins with the tokens that were skipped. With
///   ``/Longspan/MultiTokenDecoding/Phase/prompt`` it is an ordinary pass, and the next token read is a head; with
///   ``/Longspan/MultiTokenDecoding/Phase/absolute`` the prompt is read as ``read(_:workspace:)`` does.
/// - ``read(_:workspace:)`` goes on with the schedule: given one token, it runs the thinking layers only if that is a head;
///   given several, it reads them as if each had been generated (teacher forcing), the thinking layers once, up to the last
///   head.
///
/// Cache policies decide for each group by itself: a policy's windows fill at each token in the late layers and a cycle at a
/// time in the thinking layers. Positions that a policy renumbers are a layer's own, so groups may differ in them. Where a
/// policy lets no step be as long as a cycle, the skipped tokens are taken along in several steps.
///
/// Without thinking layers there are no heads, and all is ordinary decoding, bit for bit.
public final class LlamaMultiTokenSequence: ModelSequence {
  /// The model that reads.
  public let model: LlamaModel
  /// How tokens are decoded.
  public let decoding: MultiTokenDecoding
  /// Which layers belong to the early, thinking and late group.
  public let layerGroups: LayerGroups
  /// The cache policy of the whole model, as `--kv` takes it.
  public let policyName: String
  let early: LlamaLayerGroup?
  let thinking: LlamaLayerGroup?
  let late: LlamaLayerGroup
  /// The early layers' output for the tokens that the thinking layers have not read, `[lag, hidden]`.
  var skipped: [Float] = []
  /// The position of a head: all others stand whole cycles from it.
  var origin = 0
  /// Set when a step failed that could not be taken back in every group.
  var isLost = false

  init(
    _ model: LlamaModel, _ decoding: MultiTokenDecoding, _ options: SequenceOptions
  ) throws(LongspanError) {
    let groups = try decoding.layerGroups(of: model.layerCount)
    let early = try LlamaLayerGroup(model, groups.early, options)
    let thinking = try LlamaLayerGroup(model, groups.thinking, options)
    guard let late = try LlamaLayerGroup(model, groups.late, options) else {
      throw LongspanError(.invalidArgument, "\(decoding): no layer is late")
    }
    self.model = model
    self.decoding = decoding
    layerGroups = groups
    policyName = options.policy.description
    self.early = early
    self.thinking = thinking
    self.late = late
  }

  /// All that there are, the late one last.
  var groups: [LlamaLayerGroup] { [early, thinking, late].compactMap { $0 } }

  public var count: Int { late.cache.count }
  /// Tokens that the thinking layers have read; behind ``count`` by those of an unfinished cycle.
  public var thinkingCount: Int { thinking?.cache.count ?? count }
  public var byteCount: Int {
    groups.reduce(skipped.count * MemoryLayout<Float>.stride) { $0 + $1.cache.byteCount }
  }
  public var slots: Int { groups.reduce(0) { max($0, $1.cache.mostSlots) } }

  public func begin(expecting tokens: Int?) {
    for group in groups { group.removeAll() }
    skipped = []
    origin = 0
    isLost = false
  }

  public func stepLength(limit: Int) -> Int { stepLength(limit: limit, isOrdinary: false) }

  private func stepLength(limit: Int, isOrdinary: Bool) -> Int {
    var length = late.cache.stepLength(limit: limit)
    if let early { length = early.cache.stepLength(limit: length) }
    guard let thinking else { return length }
    let lag = count - thinkingCount
    let rows = isOrdinary ? length : rowsThroughLastHead(of: length)
    guard rows > 0 else { return length }
    let most = thinking.cache.stepLength(limit: lag + rows)
    if most >= lag + rows { return length }
    if most > lag { return most - lag }
    // the skipped tokens alone take more than a step: go up to the next head, or read one token after them
    let beforeHead = (decoding.cycle - (count - origin) % decoding.cycle) % decoding.cycle
    return isOrdinary ? 1 : max(1, beforeHead)
  }

  /// Of the next `length` tokens those up to the last head, that one included; 0 if there is no head among them.
  func rowsThroughLastHead(of length: Int) -> Int {
    max(0, length - (count + length - 1 - origin) % decoding.cycle)
  }

  public func requireMemory(forReading tokens: Int) throws(LongspanError) {
    var bytes = 0
    for group in groups {
      bytes += try group.cache.memoryNeeded(forReading: more(tokens, group))
    }
    try SystemMemory.require(bytes, for: "the keys and values of \(tokens) more tokens")
    // each cache then knows that it need not ask again
    for group in groups { try group.requireMemory(forReading: more(tokens, group)) }
  }

  /// Tokens that a group reads until the sequence has read `tokens` more.
  private func more(_ tokens: Int, _ group: LlamaLayerGroup) throws(LongspanError) -> Int {
    let (sum, overflow) = tokens.addingReportingOverflow(count - group.cache.count)
    guard tokens >= 0, !overflow else {
      throw LongspanError(.overflow, "\(count) and \(tokens) more tokens do not fit in 64 bits")
    }
    return sum
  }

  public func read(
    _ tokens: [Int32], workspace: inout Workspace
  ) throws(LongspanError) -> AlignedBuffer<Float> {
    try step(tokens, isOrdinary: false, &workspace)
  }

  public func readPrompt(
    _ tokens: [Int32], chunk: Int, workspace: inout Workspace, progress: ProgressHandler?
  ) throws(LongspanError) -> AlignedBuffer<Float> {
    guard !tokens.isEmpty else { throw LongspanError(.invalidText, "the prompt is empty") }
    guard chunk > 0 else { throw LongspanError(.invalidArgument, "chunk: \(chunk) is below 1") }
    let isOrdinary = decoding.phase == .prompt
    for group in groups { group.beginPrefill() }
    var first = 0
    while true {
      let end = first + stepLength(limit: min(chunk, tokens.count - first), isOrdinary: isOrdinary)
      let hidden = try step(Array(tokens[first..<end]), isOrdinary: isOrdinary, &workspace)
      try report(ProgressUpdate(stage: "reading", completed: end, total: tokens.count), to: progress)
      if end == tokens.count {
        try endPrefill(&workspace)
        return try model.logits(of: hidden, rows: end - first - 1..<end - first, workspace: &workspace)
      }
      first = end
    }
  }

  /// Lets every group's policy give up slots, even if one of them fails.
  private func endPrefill(_ workspace: inout Workspace) throws(LongspanError) {
    var failure: LongspanError?
    for group in groups {
      do throws(LongspanError) { try group.endPrefill(&workspace) } catch { failure = failure ?? error }
    }
    if let failure { throw failure }
  }
}

/// Drafting is refused.
extension LlamaMultiTokenSequence {
  public func truncate(to tokens: Int) throws(LongspanError) { try requireTruncation() }

  public func requireTruncation() throws(LongspanError) {
    throw LongspanError(
      .unsupported,
      "\(decoding) and drafting do not go together: tokens that were skipped cannot be taken back, and its text is not the "
        + "model's ordinary one")
  }
}
