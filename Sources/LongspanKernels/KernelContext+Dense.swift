import CKernels

/// The nonlinearity of a gated feed-forward layer. C: `lspan_activation`.
public enum Activation: String, Sendable, CaseIterable {
  /// x / (1 + exp(-x)) (SwiGLU: Shazeer 2020).
  case silu
  /// The tanh form of GELU (Hendrycks and Gimpel 2016).
  case geluTanh
  /// x times the normal distribution function, exact.
  case geluErf

  var code: lspan_activation {
    switch self {
    case .silu: .silu
    case .geluTanh: .gelu_tanh
    case .geluErf: .gelu_erf
    }
  }
}

/// Which channels of a head rotate together. C: `lspan_rope_layout`.
public enum RotaryLayout: Sendable, Equatable {
  /// Pair i is (x[i], x[i + pairs]): GPT-NeoX, Hugging Face.
  case halves
  /// Pair i is (x[2i], x[2i+1]): Su et al. 2021; `llama` in GGUF.
  case interleaved

  var code: lspan_rope_layout { self == .halves ? .halves : .interleaved }
}

extension KernelContext {
  /// Throws unless `output` holds a contiguous matrix of the input's shape, and returns it for C.
  private func matrixOut(
    _ layout: TensorLayout, _ output: inout MutableSpan<Float>
  ) throws(LongspanError) -> lspan_matrix_out {
    try requireCount(try checkedProduct(layout.tokens, layout.columns, "output"), in: output.count, "output")
    return lspan_matrix_out(
      data: output.mutableBaseAddress.map(UnsafeMutableRawPointer.init), dtype: .f32,
      row_stride: Int64(layout.columns))
  }

  /// RMSNorm (Zhang and Sennrich 2019, eq. 4): each row over the root of its mean square plus `epsilon`, times weight.
  ///
  /// - Parameters:
  ///   - input: `[rows, columns]`.
  ///   - weight: `[columns]`, or empty for ones.
  ///   - output: `[rows, columns]`, contiguous.
  public func rmsNorm(
    _ input: borrowing TensorView, weight: Span<Float>, epsilon: Float, into output: inout MutableSpan<Float>
  ) throws(LongspanError) {
    let layout = input.layout
    if !weight.isEmpty { try requireCount(layout.columns, in: weight.count, "weight") }
    let status = lspan_rms_norm(
      handle, Int64(layout.tokens), Int64(layout.columns), try input.matrix("input"), weight.baseAddress,
      epsilon,
      try matrixOut(layout, &output))
    try LongspanError.check(status, "RMSNorm of \(layout.tokens) x \(layout.columns)")
  }

  /// LayerNorm (Ba et al. 2016, eq. 4) with the biased variance.
  ///
  /// - Parameters:
  ///   - input: `[rows, columns]`.
  ///   - weight: `[columns]`, or empty for ones.
  ///   - bias: `[columns]`, or empty for zeros.
  ///   - output: `[rows, columns]`, contiguous.
  public func layerNorm(
    _ input: borrowing TensorView, weight: Span<Float>, bias: Span<Float>, epsilon: Float,
    into output: inout MutableSpan<Float>
  ) throws(LongspanError) {
    let layout = input.layout
    if !weight.isEmpty { try requireCount(layout.columns, in: weight.count, "weight") }
    if !bias.isEmpty { try requireCount(layout.columns, in: bias.count, "bias") }
    let status = lspan_layer_norm(
      handle, Int64(layout.tokens), Int64(layout.columns), try input.matrix("input"), weight.baseAddress,
      bias.baseAddress, epsilon, try matrixOut(layout, &output))
    try LongspanError.check(status, "LayerNorm of \(layout.tokens) x \(layout.columns)")
  }

  /// `activation(gate) * up`, element by element.
  ///
  /// - Parameters:
  ///   - gate: `[rows, columns]`.
  ///   - up: `[rows, columns]`.
  ///   - output: `[rows, columns]`, contiguous.
  public func gatedActivation(
    _ activation: Activation, gate: borrowing TensorView, up: borrowing TensorView,
    into output: inout MutableSpan<Float>
  ) throws(LongspanError) {
    let layout = gate.layout
    guard up.layout.tokens == layout.tokens, up.layout.columns == layout.columns else {
      throw LongspanError(
        .badShape,
        "gate of \(layout.tokens) x \(layout.columns) and up of \(up.layout.tokens) x \(up.layout.columns) differ"
      )
    }
    let status = lspan_gated_activation(
      handle, activation.code, Int64(layout.tokens), Int64(layout.columns), try gate.matrix("gate"),
      try up.matrix("up"), try matrixOut(layout, &output))
    try LongspanError.check(status, "gated activation of \(layout.tokens) x \(layout.columns)")
  }

  /// Rotates each head by its token's angles (Su et al. 2021, eq. 34); channels beyond the pairs are copied.
  ///
  /// - Parameters:
  ///   - input: `[T, heads, D]`.
  ///   - table: angles of at least T tokens.
  ///   - output: the same shape in any layout and element type, for example slots of a cache.
  public func rotate(
    _ input: borrowing TensorView, by table: borrowing RotaryTable, layout: RotaryLayout,
    into output: inout MutableTensorView
  ) throws(LongspanError) {
    let shape = input.layout
    try requireSameShape(shape, output.layout)
    try requireCount(shape.tokens, in: table.tokens, "rotary table")
    let status = lspan_rope(
      handle, layout.code, Int64(shape.tokens),
      Int64(shape.heads), Int64(shape.columns), Int64(table.pairs), table.cosine.span.baseAddress,
      table.sine.span.baseAddress, input.heads, output.heads)
    try LongspanError.check(status, "rotary embedding of \(shape.tokens) x \(shape.heads) x \(shape.columns)")
  }

  /// Copies a tensor into another layout and element type, rounding to nearest even.
  public func convert(
    _ input: borrowing TensorView, into output: inout MutableTensorView
  ) throws(LongspanError) {
    let shape = input.layout
    try requireSameShape(shape, output.layout)
    let status = lspan_convert(
      handle, Int64(shape.tokens), Int64(shape.heads), Int64(shape.columns), input.heads, output.heads)
    try LongspanError.check(status, "conversion of \(shape.tokens) x \(shape.heads) x \(shape.columns)")
  }

  private func requireSameShape(_ a: TensorLayout, _ b: TensorLayout) throws(LongspanError) {
    guard a.tokens == b.tokens, a.heads == b.heads, a.columns == b.columns else {
      throw LongspanError(
        .badShape,
        "input of \(a.tokens) x \(a.heads) x \(a.columns) and output of \(b.tokens) x \(b.heads) x \(b.columns) differ"
      )
    }
  }

  /// Negative log-likelihood of each row's target and the entropy of its distribution, in nats, in one pass.
  ///
  /// - Parameters:
  ///   - logits: `[rows, vocabulary]`.
  ///   - targets: `[rows]` token ids.
  ///   - nll: `[rows]`.
  ///   - entropy: `[rows]`.
  public func logSoftmaxGather(
    logits: borrowing TensorView, targets: Span<Int32>, nll: inout MutableSpan<Float>,
    entropy: inout MutableSpan<Float>
  ) throws(LongspanError) {
    let layout = logits.layout
    try requireCount(layout.tokens, in: targets.count, "targets")
    try requireCount(layout.tokens, in: nll.count, "nll")
    try requireCount(layout.tokens, in: entropy.count, "entropy")
    let status = lspan_log_softmax_gather(
      handle, Int64(layout.tokens), Int64(layout.columns), try logits.matrix("logits"), targets.baseAddress,
      nll.mutableBaseAddress, entropy.mutableBaseAddress)
    try LongspanError.check(status, "losses of \(layout.tokens) rows")
  }
}

/// Cosines and sines of a run of positions: filled once for a chunk of tokens, used in every layer.
public struct RotaryTable: ~Copyable, Sendable {
  /// Positions of the table.
  public let tokens: Int
  /// Pairs of channels that turn.
  public let pairs: Int
  let cosine: [Float]
  let sine: [Float]

  /// Angles `position * frequency`, computed in f64 and rounded once. C: `lspan_rope_table`.
  ///
  /// - Parameters:
  ///   - positions: of each token.
  ///   - inverseFrequencies: of each pair of channels, radians a token.
  public init(positions: [Int64], inverseFrequencies: [Float]) throws(LongspanError) {
    tokens = positions.count
    pairs = inverseFrequencies.count
    let count = try checkedProduct(tokens, pairs, "rotary table")
    var cosine = [Float](repeating: 0, count: count)
    var sine = cosine
    let status = lspan_rope_table(
      Int64(tokens), positions, Int64(pairs), inverseFrequencies, &cosine, &sine)
    try LongspanError.check(status, "rotary table of \(tokens) positions")
    self.cosine = cosine
    self.sine = sine
  }
}
