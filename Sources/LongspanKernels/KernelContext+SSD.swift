import CKernels

/// How a scan of Mamba-2 is computed; the results are the same but for rounding. C: `lspan_ssd_form`.
public enum SSDForm: Sendable, Equatable, CaseIterable {
  /// The faster by shape.
  case automatic
  /// A token at a time.
  case recurrent
  /// By matrix products over chunks of tokens (Dao and Gu 2024, section 6).
  case chunked

  var code: lspan_ssd_form {
    switch self {
    case .automatic: .automatic
    case .recurrent: .recurrent
    case .chunked: .chunked
    }
  }
}

/// Which call of the SSD recurrence is made.
public enum SSDMethod: Sendable, Equatable {
  /// For any number of tokens.
  case scan(SSDForm)
  /// For up to 8 tokens a sequence, as in decoding: a token at a time, without workspace.
  case update
}

extension KernelContext {
  /// The SSD scan of Mamba-2 (Dao and Gu 2024, eq. 2, with one decay a head):
  ///
  ///     s = exp(dt * A) * s + dt * B * x          for each head, channel and state
  ///     y = (sum over the states of C * s + D * x) * silu(z)
  ///
  /// with dt made of `steps` by `rule`. A token whose dt is 0 leaves the state as it is.
  /// C: `lspan_ssd_scan_run`, `lspan_ssd_update`.
  ///
  /// - Parameters:
  ///   - input: x, `[L, H, P]`, P from 1 to 256.
  ///   - steps: what dt is made of, `[L, H]`.
  ///   - decay: A, `[H]`, finite, none above 0.
  ///   - b: B, `[L, G, N]`, N from 1 to 256: group g serves the heads `g * H / G ..< (g + 1) * H / G`.
  ///   - c: C, `[L, G, N]`.
  ///   - skip: D, `[H]`, or empty for none.
  ///   - gate: z, `[L, H, P]`, or `nil` for none.
  ///   - offsets: where sequences packed in the token dimension begin, from 0, and where the last one ends; `nil` for
  ///     one sequence.
  ///   - state: `[B, H, P, N]`, before the first token and then after the last.
  ///   - workspace: scratch, grown as needed.
  ///   - output: y, `[L, H, P]`, contiguous.
  /// - Throws: ``LongspanError`` naming what does not fit.
  public func ssdScan(
    _ method: SSDMethod, input: borrowing TensorView, steps: borrowing TensorView, rule: TimeStepRule,
    decay: Span<Float>, b: borrowing TensorView, c: borrowing TensorView, skip: Span<Float>,
    gate: TensorView?, offsets: [Int64]? = nil, state: inout MutableSpan<Float>,
    workspace: inout Workspace, into output: inout MutableSpan<Float>
  ) throws(LongspanError) {
    try ssdScan(
      method, input, steps, rule, decay, b, c, skip, gate, offsets, &state, &workspace, &output, kept: nil)
  }

  /// The SSD scan that also counts the tokens whose dt is not 0 in `kept`, `[B, H]`.
  public func ssdScan(
    _ method: SSDMethod, input: borrowing TensorView, steps: borrowing TensorView, rule: TimeStepRule,
    decay: Span<Float>, b: borrowing TensorView, c: borrowing TensorView, skip: Span<Float>,
    gate: TensorView?, offsets: [Int64]? = nil, state: inout MutableSpan<Float>,
    workspace: inout Workspace, into output: inout MutableSpan<Float>, kept: inout MutableSpan<Int64>
  ) throws(LongspanError) {
    let sequences = offsets.map { $0.count - 1 } ?? 1
    try requireCount(
      try checkedProduct(max(0, sequences), input.layout.heads, "kept"), in: kept.count, "kept")
    try ssdScan(
      method, input, steps, rule, decay, b, c, skip, gate, offsets, &state, &workspace, &output,
      kept: kept.mutableBaseAddress)
  }

  private func ssdScan(
    _ method: SSDMethod, _ input: borrowing TensorView, _ steps: borrowing TensorView, _ rule: TimeStepRule,
    _ decay: Span<Float>, _ b: borrowing TensorView, _ c: borrowing TensorView, _ skip: Span<Float>,
    _ gate: TensorView?, _ offsets: [Int64]?, _ state: inout MutableSpan<Float>,
    _ workspace: inout Workspace, _ output: inout MutableSpan<Float>, kept: UnsafeMutablePointer<Int64>?
  ) throws(LongspanError) {
    let x = input.layout
    let states = b.layout.columns
    func what() -> String { "SSD scan of \(x.tokens) x \(x.heads) x \(x.columns)" }
    guard steps.layout.tokens == x.tokens, steps.layout.columns == x.heads else {
      throw LongspanError(
        .badShape, "\(what()): steps are \(steps.layout.tokens) x \(steps.layout.columns)")
    }
    guard b.layout.tokens == x.tokens, c.layout.tokens == x.tokens, b.layout.heads == c.layout.heads,
      states == c.layout.columns
    else {
      throw LongspanError(
        .badShape,
        "\(what()): B is \(b.layout.tokens) x \(b.layout.heads) x \(states), "
          + "C \(c.layout.tokens) x \(c.layout.heads) x \(c.layout.columns)")
    }
    let offsets = offsets ?? [0, Int64(x.tokens)]
    guard let last = offsets.last, last == Int64(x.tokens) else {
      throw LongspanError(.badIndex, "\(what()): offsets must end at \(x.tokens) tokens")
    }
    let sequences = offsets.count - 1
    let row = try checkedProduct(x.heads, x.columns, "row")
    let sequenceState = try checkedProduct(row, states, "state")
    try requireCount(x.heads, in: decay.count, "decay")
    if !skip.isEmpty { try requireCount(x.heads, in: skip.count, "skip") }
    try requireCount(try checkedProduct(sequences, sequenceState, "state"), in: state.count, "state")
    try requireCount(try checkedProduct(x.tokens, row, "output"), in: output.count, "output")
    var z = lspan_heads(data: nil, dtype: .f32, token_stride: 0, head_stride: 0)
    if let gate {
      guard gate.layout.tokens == x.tokens, gate.layout.heads == x.heads, gate.layout.columns == x.columns
      else {
        throw LongspanError(
          .badShape,
          "\(what()): the gate is \(gate.layout.tokens) x \(gate.layout.heads) x \(gate.layout.columns)")
      }
      z = gate.heads
    }
    let dt = try steps.matrix("steps")
    let first = state.mutableBaseAddress
    let out = lspan_heads_out(
      data: output.mutableBaseAddress.map(UnsafeMutableRawPointer.init), dtype: .f32,
      token_stride: Int64(row),
      head_stride: Int64(x.columns))
    // the array must outlive the address taken of its span
    defer { withExtendedLifetime(offsets) {} }
    let begins = offsets.span
    var call = lspan_ssd_scan(
      sequences: Int64(sequences), indptr: begins.baseAddress, heads: Int64(x.heads),
      head_dim: Int64(x.columns),
      state_size: Int64(states), groups: Int64(b.layout.heads), input: input.heads, dt: dt,
      rule: lspan_dt_rule(),
      a: decay.baseAddress, b: b.heads, c: c.heads, d: skip.baseAddress, gate: z, initial_state: first,
      final_state: first, state_stride: Int64(sequenceState), output: out, kept: kept, form: .automatic)
    try rule.withCode(channels: x.heads) { rule throws(LongspanError) in
      call.rule = rule
      switch method {
      case .update:
        try LongspanError.check(lspan_ssd_update(handle, &call), what())
      case .scan(let form):
        call.form = form.code
        var bytes = 0
        try LongspanError.check(lspan_ssd_scan_workspace_size(handle, &call, &bytes), what())
        let scratch = try workspace.reserve(bytes)
        try LongspanError.check(lspan_ssd_scan_run(handle, &call, scratch, bytes), what())
      }
    }
  }
}
