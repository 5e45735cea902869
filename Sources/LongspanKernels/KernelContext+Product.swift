import CKernels

/// In what the products of weights and inputs are made; sums are f32 in any case. C: `lspan_product_mode`.
public enum ProductMode: String, Sendable, CaseIterable {
  /// As the weights are: inputs are rounded to 8 bits, 32 at a time with one scale, for the quantized types, and to bf16
  /// for bf16 where the CPU multiplies those; they stay f32 for f16 and f32.
  case native
  /// Inputs stay f32 and weights are decoded to f32.
  case f32

  var code: lspan_product_mode { self == .native ? .native : .f32 }
}

extension KernelContext {
  /// y = x W^T, or y += x W^T. Weights are read once for several rows of input.
  ///
  /// A row of output has the same bits however many rows and threads there are.
  ///
  /// - Parameters:
  ///   - input: `[rows, W.columns]`, f32 with any row stride.
  ///   - weights: `[W.rows, W.columns]`.
  ///   - accumulating: adds to what `output` holds.
  ///   - output: `[rows, W.rows]`, contiguous.
  public func product(
    _ input: borrowing TensorView, _ weights: PackedWeights, mode: ProductMode = .native,
    accumulating: Bool = false, workspace: inout Workspace, into output: inout MutableSpan<Float>
  ) throws(LongspanError) {
    var one = try productOutput(input.layout, weights, &output)
    one.accumulate = accumulating ? 1 : 0
    try run(input, [one], mode, &workspace)
  }

  /// activation(x G^T) * (x W^T), element by element: the first half of a gated feed-forward layer.
  ///
  /// - Parameters:
  ///   - input: `[rows, W.columns]`, f32 with any row stride.
  ///   - gate: G, `[W.rows, W.columns]`, of the type of `up`.
  ///   - up: W, `[W.rows, W.columns]`.
  ///   - output: `[rows, W.rows]`, contiguous.
  public func gatedProduct(
    _ input: borrowing TensorView, gate: PackedWeights, up: PackedWeights, activation: Activation,
    mode: ProductMode = .native, workspace: inout Workspace, into output: inout MutableSpan<Float>
  ) throws(LongspanError) {
    guard gate.type == up.type, gate.rows == up.rows, gate.columns == up.columns else {
      throw LongspanError(
        .badShape,
        "gate of \(gate.rows) x \(gate.columns) \(gate.type) and up of \(up.rows) x \(up.columns) \(up.type) differ"
      )
    }
    var one = try productOutput(input.layout, up, &output)
    one.gate = gate.weights
    one.activation = activation.code
    try run(input, [one], mode, &workspace)
  }

  /// Three products of one input, such as queries, keys and values, in one call.
  ///
  /// - Parameters:
  ///   - input: `[rows, columns]`, f32 with any row stride, as wide as each of the weights.
  ///   - a: `[a.rows, columns]`; its output is `[rows, a.rows]`, contiguous; and so for `b` and `c`.
  public func products(
    _ input: borrowing TensorView, mode: ProductMode = .native, workspace: inout Workspace,
    _ a: PackedWeights, into aOutput: inout MutableSpan<Float>,
    _ b: PackedWeights, into bOutput: inout MutableSpan<Float>,
    _ c: PackedWeights, into cOutput: inout MutableSpan<Float>
  ) throws(LongspanError) {
    let outputs = [
      try productOutput(input.layout, a, &aOutput), try productOutput(input.layout, b, &bOutput),
      try productOutput(input.layout, c, &cOutput),
    ]
    try run(input, outputs, mode, &workspace)
  }

  /// An output without gate; throws unless the input fits the weights and `output` has room.
  private func productOutput(
    _ layout: TensorLayout, _ weights: PackedWeights, _ output: inout MutableSpan<Float>
  ) throws(LongspanError) -> lspan_product_output {
    guard layout.columns == weights.columns, layout.heads == 1, layout.elementType == .f32 else {
      throw LongspanError(
        .badShape,
        "product of \(layout.tokens) x \(layout.columns) and \(weights.rows) x \(weights.columns): "
          + "the input must be an f32 matrix as wide as the weights")
    }
    try requireCount(try checkedProduct(layout.tokens, weights.rows, "output"), in: output.count, "output")
    return lspan_product_output(
      weights: weights.weights, gate: lspan_packed_weights(), activation: .silu, accumulate: 0,
      data: output.mutableBaseAddress, row_stride: Int64(weights.rows))
  }

  private func run(
    _ input: borrowing TensorView, _ outputs: [lspan_product_output], _ mode: ProductMode,
    _ workspace: inout Workspace
  ) throws(LongspanError) {
    let layout = input.layout
    var call = lspan_product(
      rows: Int64(layout.tokens), columns: Int64(layout.columns),
      input: input.bytes.baseAddress?.assumingMemoryBound(to: Float.self),
      input_row_stride: Int64(layout.tokenStride), mode: mode.code, output_count: Int64(outputs.count),
      outputs: nil)
    func what() -> String {
      let shapes = outputs.map { "\($0.weights.rows) x \($0.weights.columns)" }.joined(separator: ", ")
      return "product of \(layout.tokens) x \(layout.columns) and \(shapes)"
    }
    try outputs.withUnsafeBufferPointer { outputs throws(LongspanError) in
      call.outputs = outputs.baseAddress
      var bytes = 0
      try LongspanError.check(lspan_product_workspace_size(handle, &call, &bytes), what())
      let scratch = try workspace.reserve(bytes)
      try LongspanError.check(lspan_product_run(handle, &call, scratch, bytes), what())
    }
  }
}
