/// The weights of a linear layer, `[rows, columns]`, held for products.
///
/// Types that can be packed are; others stay as they were stored and are decoded in every product.
public struct LinearWeights: Sendable {
  enum Form: Sendable {
    case packed(PackedWeights, ProductMode)
    case stored(WeightMatrix)
  }

  let form: Form

  /// - Parameter mode: in what products are made.
  public init(_ weights: PackedWeights, mode: ProductMode) { form = .packed(weights, mode) }

  /// Weights whose products decode them a panel at a time, in f32.
  public init(_ weights: WeightMatrix) { form = .stored(weights) }

  /// Outputs of the layer.
  public var rows: Int {
    switch form {
    case .packed(let weights, _): weights.rows
    case .stored(let weights): weights.rows
    }
  }

  /// Inputs of the layer.
  public var columns: Int {
    switch form {
    case .packed(let weights, _): weights.columns
    case .stored(let weights): weights.columns
    }
  }

  /// How the weights are stored.
  public var type: WeightType {
    switch form {
    case .packed(let weights, _): weights.type
    case .stored(let weights): weights.type
    }
  }

  /// Bytes as they are held, beside the mapping of a file.
  public var ownedByteCount: Int {
    switch form {
    case .packed(let weights, _): weights.byteCount
    case .stored(let weights): weights.ownedByteCount
    }
  }

  /// The packed weights and the mode, if this is how they are held.
  fileprivate var packed: (PackedWeights, ProductMode)? {
    if case .packed(let weights, let mode) = form { (weights, mode) } else { nil }
  }
}

extension KernelContext {
  /// y = x W^T, or y += x W^T.
  ///
  /// - Parameters:
  ///   - input: `[rows, W.columns]`, f32 with any row stride.
  ///   - weights: `[W.rows, W.columns]`.
  ///   - accumulating: adds to what `output` holds.
  ///   - output: `[rows, W.rows]`, contiguous.
  public func linear(
    _ input: borrowing TensorView, _ weights: LinearWeights, accumulating: Bool = false,
    workspace: inout Workspace, into output: inout MutableSpan<Float>
  ) throws(LongspanError) {
    switch weights.form {
    case .packed(let packed, let mode):
      try product(
        input, packed, mode: mode, accumulating: accumulating, workspace: &workspace, into: &output)
    case .stored(let stored):
      try linear(input, stored, accumulating: accumulating, workspace: &workspace, into: &output)
    }
  }

  /// Three products of one input, such as queries, keys and values: in one call where all weights are packed.
  ///
  /// - Parameters:
  ///   - input: `[rows, columns]`, f32 with any row stride, as wide as each of the weights.
  ///   - a: `[a.rows, columns]`; its output is `[rows, a.rows]`, contiguous; and so for `b` and `c`.
  public func linear(
    _ input: borrowing TensorView, workspace: inout Workspace,
    _ a: LinearWeights, into aOutput: inout MutableSpan<Float>,
    _ b: LinearWeights, into bOutput: inout MutableSpan<Float>,
    _ c: LinearWeights, into cOutput: inout MutableSpan<Float>
  ) throws(LongspanError) {
    if let (aPacked, mode) = a.packed, let (bPacked, bMode) = b.packed, let (cPacked, cMode) = c.packed,
      mode == bMode, mode == cMode
    {
      try products(
        input, mode: mode, workspace: &workspace, aPacked, into: &aOutput, bPacked, into: &bOutput, cPacked,
        into: &cOutput)
      return
    }
    try linear(input, a, workspace: &workspace, into: &aOutput)
    try linear(input, b, workspace: &workspace, into: &bOutput)
    try linear(input, c, workspace: &workspace, into: &cOutput)
  }

  /// activation(x G^T) * (x W^T), element by element: the first half of a gated feed-forward layer, in one call where both
  /// are packed in one type.
  ///
  /// - Parameters:
  ///   - input: `[rows, W.columns]`, f32 with any row stride.
  ///   - gate: G, `[W.rows, W.columns]`.
  ///   - up: W, `[W.rows, W.columns]`.
  ///   - output: `[rows, W.rows]`, contiguous.
  public func gatedLinear(
    _ input: borrowing TensorView, gate: LinearWeights, up: LinearWeights, activation: Activation,
    workspace: inout Workspace, into output: inout MutableSpan<Float>
  ) throws(LongspanError) {
    if let (gatePacked, mode) = gate.packed, let (upPacked, upMode) = up.packed, mode == upMode,
      gate.type == up.type
    {
      try gatedProduct(
        input, gate: gatePacked, up: upPacked, activation: activation, mode: mode, workspace: &workspace,
        into: &output)
      return
    }
    let tokens = input.layout.tokens
    var gates = try AlignedBuffer<Float>(count: try checkedProduct(tokens, gate.rows, "gate"))
    var ups = try AlignedBuffer<Float>(count: try checkedProduct(tokens, up.rows, "output"))
    var gateSpan = gates.mutableSpan
    var upSpan = ups.mutableSpan
    try linear(input, gate, workspace: &workspace, into: &gateSpan)
    try linear(input, up, workspace: &workspace, into: &upSpan)
    try gatedActivation(
      activation, gate: TensorView(gates.span, tokens: tokens, columns: gate.rows),
      up: TensorView(ups.span, tokens: tokens, columns: up.rows), into: &output)
  }
}
