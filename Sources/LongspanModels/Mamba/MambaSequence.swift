import Longspan
import LongspanKernels

/// A text that a Mamba or Mamba-2 model is reading, with the states of its layers.
///
/// A ``/Longspan/TimeStepPolicy`` decides before each step which time steps are scaled or dropped, and which tokens
/// deeper layers see.
public final class MambaSequence: ModelSequence {
  /// The model that reads.
  public let model: MambaModel
  /// The states after what was read.
  public private(set) var state: RecurrentState
  /// Decides what happens to time steps; changed by the steps that it has seen.
  public private(set) var timeSteps: any TimeStepPolicy
  private let initialTimeSteps: any TimeStepPolicy
  /// Tokens of the text that is being read, where that is known.
  private var promptLength: Int?
  /// Time steps of each layer since the text's beginning.
  public private(set) var stepCounts: [StepCounts]

  /// Time steps of all channels or heads of a layer.
  public struct StepCounts: Sendable, Equatable {
    /// All of them.
    public var total = 0
    /// Those that are not 0, which a filter makes of the others.
    public var kept = 0
  }

  init(_ model: MambaModel, _ timeSteps: any TimeStepPolicy) throws(LongspanError) {
    try timeSteps.check(model.stateSpaceShape)
    let state = try model.makeState()
    self.model = model
    self.state = state
    self.timeSteps = timeSteps
    initialTimeSteps = timeSteps
    stepCounts = Array(repeating: StepCounts(), count: model.layerCount)
  }

  public var count: Int { state.count }
  public var byteCount: Int { state.byteCount }
  public var slots: Int { 0 }
  public var policyName: String { "recurrent" }

  public func begin(expecting tokens: Int?) {
    state.removeAll()
    timeSteps = initialTimeSteps
    promptLength = tokens
    stepCounts = Array(repeating: StepCounts(), count: model.layerCount)
  }

  public func stepLength(limit: Int) -> Int { limit }

  public func requireMemory(forReading tokens: Int) throws(LongspanError) {
    guard tokens >= 0, !state.count.addingReportingOverflow(tokens).overflow else {
      throw LongspanError(.overflow, "\(state.count) and \(tokens) more tokens do not fit in 64 bits")
    }
  }

  public func truncate(to tokens: Int) throws(LongspanError) { throw cannotGoBack }

  public func requireTruncation() throws(LongspanError) { throw cannotGoBack }

  private var cannotGoBack: LongspanError {
    LongspanError(
      .unsupported,
      "a state of \(model.architecture) holds its whole text and cannot go back to fewer tokens, as drafting asks"
    )
  }

  public func read(
    _ tokens: [Int32], workspace: inout Workspace
  ) throws(LongspanError) -> AlignedBuffer<Float> {
    let (end, overflow) = state.count.addingReportingOverflow(tokens.count)
    guard !overflow else {
      throw LongspanError(.overflow, "\(state.count) and \(tokens.count) tokens do not fit in 64 bits")
    }
    let isPrompt = promptLength.map { end <= $0 } ?? false
    let step = ReadingStep(
      position: state.count, count: tokens.count, promptLength: promptLength, isPrompt: isPrompt)
    var policy = timeSteps
    let filters = policy.filters(for: step, shape: model.stateSpaceShape)
    var counts = stepCounts
    let hidden = try model.hiddenStates(
      of: tokens, state: &state, filters: filters, inspecting: policy.decimatedLayers, counts: &counts,
      workspace: &workspace
    ) { layer, steps, rows in
      policy.rowsToKeep(layer: layer, steps: steps, rows: rows, step: step)
    }
    timeSteps = policy
    stepCounts = counts
    return hidden
  }

  public func readPrompt(
    _ tokens: [Int32], chunk: Int, workspace: inout Workspace, progress: ProgressHandler?
  ) throws(LongspanError) -> AlignedBuffer<Float> {
    guard !tokens.isEmpty else { throw LongspanError(.invalidText, "the prompt is empty") }
    guard chunk > 0 else { throw LongspanError(.invalidArgument, "chunk: \(chunk) is below 1") }
    // a text of known length may come in several pieces
    promptLength = max(promptLength ?? 0, state.count + tokens.count)
    var first = 0
    while true {
      let end = first + min(chunk, tokens.count - first)
      let hidden = try read(Array(tokens[first..<end]), workspace: &workspace)
      try report(ProgressUpdate(stage: "reading", completed: end, total: tokens.count), to: progress)
      if end == tokens.count {
        let rows = hidden.count / model.hiddenSize
        return try model.logits(of: hidden, rows: rows - 1..<rows, workspace: &workspace)
      }
      first = end
    }
  }

  /// Keeps the states, to ``restore(_:)`` them later.
  public func snapshot() throws(LongspanError) -> RecurrentState.Snapshot { try state.snapshot() }

  /// Brings back the states of a snapshot, of this sequence or another of the model.
  public func restore(_ snapshot: RecurrentState.Snapshot) throws(LongspanError) {
    try state.restore(snapshot)
  }
}
