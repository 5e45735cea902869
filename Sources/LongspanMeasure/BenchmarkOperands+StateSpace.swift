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
}

extension BenchmarkKernel {
  /// Whether it takes a vector of ones for weights or biases.
  var isNorm: Bool { self == .rmsNorm || self == .layerNorm || self == .gatedRMSNorm }
}
