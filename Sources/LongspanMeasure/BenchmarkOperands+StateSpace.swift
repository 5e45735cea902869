import LongspanKernels

extension BenchmarkOperands {
  /// A call of the layers around a state-space scan.
  static func stateSpaceLayer(
    _ kernel: BenchmarkKernel, _ s: Shape, _ type: ElementType, _ context: KernelContext, _ slot: Int,
    _ inputs: borrowing Inputs, _ out: inout MutableSpan<Float>, _ state: inout MutableSpan<Float>
  ) throws(LongspanError) {
    switch kernel {
    case .causalConv:
      try context.causalConvolution(
        try inputs.first.view(slot, TensorLayout(type, tokens: s["L"], columns: s["E"])),
        weight: inputs.floats.buffer.span.extracting(inputs.floats.range(slot)), width: s["W"],
        bias: inputs.moreFloats.buffer.span.extracting(inputs.moreFloats.range(slot)), appliesSiLU: true,
        state: &state, into: &out)
    case .gatedRMSNorm:
      let layout = TensorLayout(type, tokens: s["R"], columns: s["C"])
      let weight = inputs.vector.span
      try context.gatedRMSNorm(
        try inputs.first.view(slot, layout), gate: try inputs.second.view(slot, layout), weight: weight,
        groups: s["G"], epsilon: 1e-5, into: &out)
    default:
      try context.timeSteps(
        of: try inputs.first.view(slot, TensorLayout(type, tokens: s["L"], columns: s["E"])),
        rule: TimeStepRule(bias: inputs.vector, appliesSoftplus: true), into: &out)
    }
  }

  /// A scan, or an update of as many sequences as there are rows; u and z lie side by side, as projections write them.
  static func selectiveScan(
    _ kernel: BenchmarkKernel, _ s: Shape, _ type: ElementType, _ context: KernelContext, _ slot: Int,
    _ inputs: borrowing Inputs, _ out: inout MutableSpan<Float>, _ state: inout MutableSpan<Float>,
    _ workspace: inout Workspace
  ) throws(LongspanError) {
    let isScan = kernel == .selectiveScan
    let rows = s[isScan ? "L" : "B"]
    let pair = try inputs.first.view(slot, TensorLayout(type, tokens: rows, heads: 2, columns: s["E"]))
    let states = try inputs.third.view(slot, TensorLayout(type, tokens: rows, heads: 2, columns: s["N"]))
    let decay = inputs.vector.span
    try context.selectiveScan(
      isScan ? .scan : .update, input: try pair.head(0),
      steps: try inputs.second.view(slot, TensorLayout(type, tokens: rows, columns: s["E"])),
      rule: TimeStepRule(bias: inputs.bias, appliesSoftplus: true), decay: decay,
      b: try states.head(0), c: try states.head(1),
      skip: inputs.floats.buffer.span.extracting(inputs.floats.range(slot)), gate: try pair.head(1),
      offsets: isScan ? nil : (0...Int64(rows)).map { $0 }, state: &state, workspace: &workspace, into: &out)
  }
}

extension BenchmarkKernel {
  /// Whether it takes a vector of ones for weights or biases.
  var isNorm: Bool { self == .rmsNorm || self == .layerNorm || self == .gatedRMSNorm }
}
