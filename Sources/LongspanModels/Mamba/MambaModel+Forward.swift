import Longspan
import LongspanKernels

/// Sees a layer's number, its time steps, `[rows, channels]`, before a filter, and how many rows there are; returns the rows
/// that go on, ascending and with the last one among them, or `nil` for all.
typealias TimeStepInspector = (Int, Span<Float>, Int) throws(LongspanError) -> [Int]?

extension MambaModel {
  /// Reads tokens after those in the state and returns the hidden states after the final norm of the rows that were kept,
  /// `[rows, hidden]`. The state is unchanged if this throws.
  ///
  /// - Parameters:
  ///   - filters: one a layer, or empty.
  ///   - inspected: layers whose time steps `inspect` sees.
  ///   - counts: grows by the time steps of each layer.
  func hiddenStates(
    of tokens: [Int32], state: inout RecurrentState, filters: [TimeStepFilter?],
    inspecting inspected: Set<Int>,
    counts: inout [MambaSequence.StepCounts], workspace: inout Workspace, _ inspect: TimeStepInspector
  ) throws(LongspanError) -> AlignedBuffer<Float> {
    guard !tokens.isEmpty else { throw LongspanError(.invalidArgument, "a model cannot read 0 tokens") }
    guard filters.isEmpty || filters.count == configuration.layers else {
      throw LongspanError(
        .badShape,
        "\(filters.count) time step filters are not one for each of \(configuration.layers) layers")
    }
    try state.beginStep()
    do throws(LongspanError) {
      let hidden = try run(tokens, &state, filters, inspected, &counts, &workspace, inspect)
      try state.commitStep(tokens.count)
      return hidden
    } catch {
      state.abandonStep()
      throw error
    }
  }

  public func observeTimeSteps(
    of tokens: [Int32], workspace: inout Workspace,
    _ observe: (Int, Span<Float>) throws(LongspanError) -> Void
  ) throws(LongspanError) {
    var state = try makeState()
    var counts: [MambaSequence.StepCounts] = Array(repeating: .init(), count: configuration.layers)
    _ = try hiddenStates(
      of: tokens, state: &state, filters: [], inspecting: Set(0..<configuration.layers), counts: &counts,
      workspace: &workspace
    ) { (layer, steps, _) throws(LongspanError) in
      try observe(layer, steps)
      return nil
    }
  }

  private func run(
    _ tokens: [Int32], _ state: inout RecurrentState, _ filters: [TimeStepFilter?], _ inspected: Set<Int>,
    _ counts: inout [MambaSequence.StepCounts], _ workspace: inout Workspace, _ inspect: TimeStepInspector
  ) throws(LongspanError) -> AlignedBuffer<Float> {
    let c = configuration
    var step = try MambaStep(c, count: tokens.count)
    var residual = try AlignedBuffer<Float>(count: tokens.count * c.hidden)
    var embedded = residual.mutableSpan
    KernelProfile.setTag(-1)
    try context.embed(tokens.span, table: weights.embedding, into: &embedded)
    for (index, layer) in weights.layers.enumerated() {
      KernelProfile.setTag(index)
      try normalize(residual, layer.norm, step.rows, into: &step.normed)
      try multiply(step.normed, layer.input, step.rows, &workspace, into: &step.projected)
      try convolve(layer, index, &step, &state)
      try project(layer, &step, &workspace)
      if inspected.contains(index) { try keepRows(layer, index, &step, &residual, inspect) }
      let filter = filters.isEmpty ? nil : filters[index]
      try scan(layer, index, filter, &step, &state, &counts[index], &workspace)
      try multiply(step.scanned, layer.output, step.rows, accumulating: true, &workspace, into: &residual)
    }
    KernelProfile.setTag(c.layers)
    var hidden = try AlignedBuffer<Float>(count: step.rows * c.hidden)
    try normalize(residual, weights.outputNorm, step.rows, into: &hidden)
    return hidden
  }

  /// The causal convolution and SiLU over x, or x, B and C.
  private func convolve(
    _ layer: MambaWeights.Layer, _ index: Int, _ step: inout MambaStep, _ state: inout RecurrentState
  ) throws(LongspanError) {
    let rows = step.rows
    try convolve(step.projected, step.layout.convolved, rows, layer, index, &state, into: &step.convolved)
  }

  private func convolve(
    _ projected: borrowing AlignedBuffer<Float>, _ columns: MambaStep.Columns, _ rows: Int,
    _ layer: MambaWeights.Layer, _ index: Int, _ state: inout RecurrentState,
    into convolved: inout AlignedBuffer<Float>
  ) throws(LongspanError) {
    var output = convolved.mutableSpan
    let input = try projected.view(columns, rows: rows)
    try state.updateConvolution(layer: index) { values throws(LongspanError) in
      try context.causalConvolution(
        input, weight: layer.convolution.span, width: configuration.convolutionWidth,
        bias: layer.convolutionBias.span, appliesSiLU: true, state: &values, into: &output)
    }
  }

  /// The time steps, B and C that Mamba makes of the convolved x; Mamba-2 has them already.
  private func project(
    _ layer: MambaWeights.Layer, _ step: inout MambaStep, _ workspace: inout Workspace
  ) throws(LongspanError) {
    guard case .selective(let projection, let timeStep) = layer.mixer else { return }
    try multiply(step.convolved, projection, step.rows, &workspace, into: &step.low)
    let rank = MambaStep.Columns(offset: 0, count: timeStep.columns, width: projection.rows)
    let rows = step.rows
    try multiply(step.low, rank, timeStep, rows, &workspace, into: &step.steps)
  }

  /// The rule that makes a layer's time steps of what ``project(_:_:_:)`` gives.
  private func rule(_ layer: MambaWeights.Layer, _ filter: TimeStepFilter?) -> TimeStepRule {
    TimeStepRule(
      bias: layer.timeStepBias, appliesSoftplus: true, minimum: configuration.timeStepLimits.lowerBound,
      maximum: configuration.timeStepLimits.upperBound, filter: filter)
  }

  /// Shows a layer's time steps to who wants to see them, and drops the rows that do not go on.
  private func keepRows(
    _ layer: MambaWeights.Layer, _ index: Int, _ step: inout MambaStep,
    _ residual: inout AlignedBuffer<Float>,
    _ inspect: TimeStepInspector
  ) throws(LongspanError) {
    var steps = try AlignedBuffer<Float>(count: step.rows * configuration.timeStepChannels)
    var span = steps.mutableSpan
    try context.timeSteps(of: step.timeSteps(), rule: rule(layer, nil), into: &span)
    guard let rows = try inspect(index, steps.span, step.rows) else { return }
    guard rows.last == step.rows - 1, rows[0] >= 0, zip(rows, rows.dropFirst()).allSatisfy({ $0 < $1 }) else {
      throw LongspanError(
        .badIndex,
        "the rows that go on into layer \(index) must be ascending, within \(step.rows), with the last among them"
      )
    }
    residual.keep(rows, width: configuration.hidden)
    step.keep(rows)
  }

  /// The scan, with what comes after it before the output product.
  private func scan(
    _ layer: MambaWeights.Layer, _ index: Int, _ filter: TimeStepFilter?, _ step: inout MambaStep,
    _ state: inout RecurrentState, _ counts: inout MambaSequence.StepCounts, _ workspace: inout Workspace
  ) throws(LongspanError) {
    let rule = rule(layer, filter)
    let rows = step.rows
    var kept: [Int64] = []
    try state.updateState(layer: index) { values throws(LongspanError) in
      switch configuration.mixer {
      case .selective:
        kept = try selectiveScan(
          layer, rule, step.layout, rows, convolved: step.convolved, low: step.low, steps: step.steps,
          projected: step.projected, state: &values, &workspace, into: &step.scanned)
      case .dual(let heads, let groups):
        kept = try dualScan(
          layer, rule, step.layout, rows, heads: heads, groups: groups, convolved: step.convolved,
          projected: step.projected, state: &values, &workspace, into: &step.ungated)
      }
    }
    if case .dual(let norm) = layer.mixer, case .dual(_, let groups) = configuration.mixer {
      try gatedNorm(step.ungated, step.projected, step.layout, rows, norm, groups, into: &step.scanned)
    }
    counts.total += rows * kept.count
    counts.kept += kept.reduce(0) { $0 + Int($1) }
  }
}
