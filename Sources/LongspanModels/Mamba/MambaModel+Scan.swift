import LongspanKernels

extension MambaModel {
  /// Tokens up to which a scan reads and writes the state once for all of them.
  private static let updateTokens = 8

  /// Mamba's scan, with the skip D and the gate z.
  ///
  /// - Returns: of each channel, the tokens whose step is not 0.
  func selectiveScan(
    _ layer: MambaWeights.Layer, _ rule: TimeStepRule, _ layout: MambaStep.Layout, _ rows: Int,
    convolved: borrowing AlignedBuffer<Float>, low: borrowing AlignedBuffer<Float>,
    steps: borrowing AlignedBuffer<Float>, projected: borrowing AlignedBuffer<Float>,
    state: inout MutableSpan<Float>, _ workspace: inout Workspace, into output: inout AlignedBuffer<Float>
  ) throws(LongspanError) -> [Int64] {
    var scanned = output.mutableSpan
    var kept = [Int64](repeating: 0, count: configuration.inner)
    var counts = kept.mutableSpan
    try context.selectiveScan(
      rows <= Self.updateTokens ? .update : .scan, input: convolved.view(layout.input, rows: rows),
      steps: steps.view(layout.steps, rows: rows), rule: rule, decay: layer.decay.span,
      b: low.view(layout.b, rows: rows), c: low.view(layout.c, rows: rows), skip: layer.skip.span,
      gate: projected.view(layout.gate, rows: rows), state: &state, workspace: &workspace, into: &scanned,
      kept: &counts)
    return kept
  }

  /// Mamba-2's scan, with the skip D.
  ///
  /// - Returns: of each head, the tokens whose step is not 0.
  func dualScan(
    _ layer: MambaWeights.Layer, _ rule: TimeStepRule, _ layout: MambaStep.Layout, _ rows: Int, heads: Int,
    groups: Int, convolved: borrowing AlignedBuffer<Float>, projected: borrowing AlignedBuffer<Float>,
    state: inout MutableSpan<Float>, _ workspace: inout Workspace, into output: inout AlignedBuffer<Float>
  ) throws(LongspanError) -> [Int64] {
    var scanned = output.mutableSpan
    var kept = [Int64](repeating: 0, count: heads)
    var counts = kept.mutableSpan
    try context.ssdScan(
      rows <= Self.updateTokens ? .update : .scan(.automatic),
      input: convolved.view(layout.input, rows: rows, heads: heads),
      steps: projected.view(layout.steps, rows: rows), rule: rule, decay: layer.decay.span,
      b: convolved.view(layout.b, rows: rows, heads: groups),
      c: convolved.view(layout.c, rows: rows, heads: groups), skip: layer.skip.span, gate: nil, state: &state,
      workspace: &workspace, into: &scanned, kept: &counts)
    return kept
  }

  /// What comes between Mamba-2's scan and its output product.
  func gatedNorm(
    _ input: borrowing AlignedBuffer<Float>, _ projected: borrowing AlignedBuffer<Float>,
    _ layout: MambaStep.Layout, _ rows: Int, _ weight: [Float], _ groups: Int,
    into output: inout AlignedBuffer<Float>
  ) throws(LongspanError) {
    var normed = output.mutableSpan
    try context.gatedRMSNorm(
      TensorView(input.span, tokens: rows, columns: configuration.inner),
      gate: projected.view(layout.gate, rows: rows), weight: weight.span, groups: groups,
      epsilon: configuration.normEpsilon, into: &normed)
  }

  // One kernel call each. They take buffers rather than spans because spans of two fields of one owner cannot be open at once.

  func normalize(
    _ input: borrowing AlignedBuffer<Float>, _ weight: [Float], _ rows: Int,
    into output: inout AlignedBuffer<Float>
  ) throws(LongspanError) {
    var normed = output.mutableSpan
    try context.rmsNorm(
      TensorView(input.span, tokens: rows, columns: configuration.hidden), weight: weight.span,
      epsilon: configuration.normEpsilon, into: &normed)
  }

  func multiply(
    _ input: borrowing AlignedBuffer<Float>, _ weights: LinearWeights, _ rows: Int,
    accumulating: Bool = false,
    _ workspace: inout Workspace, into output: inout AlignedBuffer<Float>
  ) throws(LongspanError) {
    var product = output.mutableSpan
    try context.linear(
      TensorView(input.span, tokens: rows, columns: weights.columns), weights, accumulating: accumulating,
      workspace: &workspace, into: &product)
  }

  func multiply(
    _ input: borrowing AlignedBuffer<Float>, _ columns: MambaStep.Columns, _ weights: LinearWeights,
    _ rows: Int,
    _ workspace: inout Workspace, into output: inout AlignedBuffer<Float>
  ) throws(LongspanError) {
    var product = output.mutableSpan
    try context.linear(
      input.view(columns, rows: rows), weights, workspace: &workspace, into: &product)
  }
}
