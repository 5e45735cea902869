import CKernels

extension KernelContext {
  /// The time steps that a scan would use (`ssm.h`), for calibration.
  ///
  /// - Parameters:
  ///   - input: what the layer's projection gives, `[L, channels]`; one head.
  ///   - rule: what is done with it.
  ///   - output: `[L, channels]`, contiguous.
  public func timeSteps(
    of input: borrowing TensorView, rule: TimeStepRule, into output: inout MutableSpan<Float>
  ) throws(LongspanError) {
    let layout = input.layout
    try requireCount(try checkedProduct(layout.tokens, layout.columns, "output"), in: output.count, "output")
    let matrix = try input.matrix("input")
    let steps = output.mutableBaseAddress
    let offsets: [Int64] = [0, Int64(layout.tokens)]
    try rule.withCode(channels: layout.columns) { rule throws(LongspanError) in
      let status = withUnsafePointer(to: rule) {
        lspan_dt_steps(
          handle, 1, offsets, Int64(layout.columns), matrix, $0, steps, Int64(layout.columns))
      }
      try LongspanError.check(status, "time steps of \(layout.tokens) x \(layout.columns)")
    }
  }

  /// Depthwise causal convolution along the tokens of one sequence, with the rows before them in `state`.
  ///
  /// - Parameters:
  ///   - input: `[L, E]`.
  ///   - weight: `[E, W]`, W from 2 to 4; the last tap is the token's own.
  ///   - bias: `[E]`, or empty for none.
  ///   - appliesSiLU: whether `silu` follows.
  ///   - state: the last W - 1 rows before the input, `[W - 1, E]`, zeros at the beginning; then the last ones of all.
  ///   - output: `[L, E]`, contiguous.
  public func causalConvolution(
    _ input: borrowing TensorView, weight: Span<Float>, width: Int, bias: Span<Float>, appliesSiLU: Bool,
    state: inout MutableSpan<Float>, into output: inout MutableSpan<Float>
  ) throws(LongspanError) {
    let layout = input.layout
    guard width >= 2, width <= 4 else {
      throw LongspanError(.badShape, "a convolution of \(width) taps is not supported; 2 to 4 are")
    }
    try requireCount(try checkedProduct(layout.columns, width, "weight"), in: weight.count, "weight")
    if !bias.isEmpty { try requireCount(layout.columns, in: bias.count, "bias") }
    try requireCount(try checkedProduct(layout.columns, width - 1, "state"), in: state.count, "state")
    try requireCount(try checkedProduct(layout.tokens, layout.columns, "output"), in: output.count, "output")
    let offsets: [Int64] = [0, Int64(layout.tokens)]
    let matrix = try input.matrix("input")
    let status = offsets.withUnsafeBufferPointer { offsets in
      var call = lspan_causal_conv(
        sequences: 1, indptr: offsets.baseAddress, channels: Int64(layout.columns), width: Int64(width),
        input: matrix, weight: weight.baseAddress, bias: bias.baseAddress, silu: appliesSiLU ? 1 : 0,
        initial_state: state.mutableBaseAddress, final_state: state.mutableBaseAddress,
        state_stride: Int64(state.count),
        output: lspan_matrix_out(
          data: output.mutableBaseAddress.map(UnsafeMutableRawPointer.init), dtype: .f32,
          row_stride: Int64(layout.columns)))
      return lspan_causal_conv_run(handle, &call)
    }
    try LongspanError.check(status, "causal convolution of \(layout.tokens) x \(layout.columns)")
  }

  /// RMSNorm over groups of channels with a SiLU gate (Dao and Gu 2024, section 7.1).
  ///
  /// - Parameters:
  ///   - input: `[rows, columns]`.
  ///   - gate: `[rows, columns]`.
  ///   - weight: `[columns]`, or empty for ones.
  ///   - groups: equal runs of the columns that are normalized each on its own.
  ///   - normalizingFirst: `norm(x) * weight * silu(gate)` instead of `norm(x * silu(gate)) * weight`.
  ///   - output: `[rows, columns]`, contiguous.
  public func gatedRMSNorm(
    _ input: borrowing TensorView, gate: borrowing TensorView, weight: Span<Float>, groups: Int = 1,
    epsilon: Float, normalizingFirst: Bool = false, into output: inout MutableSpan<Float>
  ) throws(LongspanError) {
    let layout = input.layout
    guard gate.layout.tokens == layout.tokens, gate.layout.columns == layout.columns else {
      throw LongspanError(
        .badShape,
        "input of \(layout.tokens) x \(layout.columns) and gate of \(gate.layout.tokens) x \(gate.layout.columns) differ"
      )
    }
    if !weight.isEmpty { try requireCount(layout.columns, in: weight.count, "weight") }
    try requireCount(try checkedProduct(layout.tokens, layout.columns, "output"), in: output.count, "output")
    var call = lspan_gated_rms_norm(
      rows: Int64(layout.tokens), columns: Int64(layout.columns), groups: Int64(groups),
      norm_first: normalizingFirst ? 1 : 0, input: try input.matrix("input"), gate: try gate.matrix("gate"),
      weight: weight.baseAddress, epsilon: epsilon,
      output: lspan_matrix_out(
        data: output.mutableBaseAddress.map(UnsafeMutableRawPointer.init), dtype: .f32,
        row_stride: Int64(layout.columns)))
    try LongspanError.check(
      lspan_gated_rms_norm_run(handle, &call), "gated RMSNorm of \(layout.tokens) x \(layout.columns)")
  }
}
