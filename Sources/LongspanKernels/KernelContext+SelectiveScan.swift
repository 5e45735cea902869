import CKernels

/// How a selective scan is computed; the results are the same but for rounding.
public enum ScanMethod: Sendable, Equatable {
  /// Channels side by side: for any number of tokens.
  case scan
  /// States side by side: for up to 8 tokens a sequence, as in decoding.
  case update
}

extension KernelContext {
  /// The selective scan of Mamba (Gu and Dao 2023, algorithm 2) with the simplified discretization of their code:
  ///
  ///     h = exp(dt * A) * h + dt * B * u          for each channel and state
  ///     y = (sum over the states of C * h + D * u) * silu(z)
  ///
  /// with dt made of `steps` by `rule`. A token whose dt is 0 leaves the state as it is, bit for bit.
  /// C: `lspan_selective_scan_run`, `lspan_selective_update`.
  ///
  /// - Parameters:
  ///   - method: a scan refuses a positive or infinite `decay`, an update does not look at it.
  ///   - input: u, `[L, E]`.
  ///   - steps: what dt is made of, `[L, E]`.
  ///   - decay: A, `[E, N]`, N from 1 to 256.
  ///   - b: B, `[L, G, N]`: head g serves the channels `g * E / G ..< (g + 1) * E / G`.
  ///   - c: C, `[L, G, N]`.
  ///   - skip: D, `[E]`, or empty for none.
  ///   - gate: z, `[L, E]`, or `nil` for none.
  ///   - offsets: where sequences packed in the token dimension begin, from 0, and where the last one ends; `nil` for
  ///     one sequence.
  ///   - state: `[B, E, N]`, before the first token and then after the last.
  ///   - workspace: scratch, grown as needed.
  ///   - output: y, `[L, E]`, contiguous.
  /// - Throws: ``LongspanError`` naming what does not fit.
  public func selectiveScan(
    _ method: ScanMethod, input: borrowing TensorView, steps: borrowing TensorView, rule: TimeStepRule,
    decay: Span<Float>, b: borrowing TensorView, c: borrowing TensorView, skip: Span<Float>,
    gate: TensorView?, offsets: [Int64]? = nil, state: inout MutableSpan<Float>,
    workspace: inout Workspace, into output: inout MutableSpan<Float>
  ) throws(LongspanError) {
    try selectiveScan(
      method, input, steps, rule, decay, b, c, skip, gate, offsets, &state, &workspace, &output, kept: nil)
  }

  /// The selective scan that also counts the tokens whose dt is not 0 in `kept`, `[B, E]`.
  public func selectiveScan(
    _ method: ScanMethod, input: borrowing TensorView, steps: borrowing TensorView, rule: TimeStepRule,
    decay: Span<Float>, b: borrowing TensorView, c: borrowing TensorView, skip: Span<Float>,
    gate: TensorView?, offsets: [Int64]? = nil, state: inout MutableSpan<Float>,
    workspace: inout Workspace, into output: inout MutableSpan<Float>, kept: inout MutableSpan<Int64>
  ) throws(LongspanError) {
    let sequences = offsets.map { $0.count - 1 } ?? 1
    try requireCount(
      try checkedProduct(max(0, sequences), input.layout.columns, "kept"), in: kept.count, "kept")
    try selectiveScan(
      method, input, steps, rule, decay, b, c, skip, gate, offsets, &state, &workspace, &output,
      kept: kept.mutableBaseAddress)
  }

  private func selectiveScan(
    _ method: ScanMethod, _ input: borrowing TensorView, _ steps: borrowing TensorView, _ rule: TimeStepRule,
    _ decay: Span<Float>, _ b: borrowing TensorView, _ c: borrowing TensorView, _ skip: Span<Float>,
    _ gate: TensorView?, _ offsets: [Int64]?, _ state: inout MutableSpan<Float>,
    _ workspace: inout Workspace, _ output: inout MutableSpan<Float>, kept: UnsafeMutablePointer<Int64>?
  ) throws(LongspanError) {
    let layout = input.layout
    let channels = layout.columns
    let states = b.layout.columns
    func what() -> String { "selective scan of \(layout.tokens) x \(channels)" }
    guard steps.layout.tokens == layout.tokens, steps.layout.columns == channels else {
      throw LongspanError(
        .badShape, "\(what()): steps are \(steps.layout.tokens) x \(steps.layout.columns)")
    }
    guard b.layout.tokens == layout.tokens, c.layout.tokens == layout.tokens,
      b.layout.heads == c.layout.heads, states == c.layout.columns
    else {
      throw LongspanError(
        .badShape,
        "\(what()): B is \(b.layout.tokens) x \(b.layout.heads) x \(states), "
          + "C \(c.layout.tokens) x \(c.layout.heads) x \(c.layout.columns)")
    }
    let offsets = offsets ?? [0, Int64(layout.tokens)]
    guard let last = offsets.last, last == Int64(layout.tokens) else {
      throw LongspanError(.badIndex, "\(what()): offsets must end at \(layout.tokens) tokens")
    }
    let sequences = offsets.count - 1
    let row = try checkedProduct(channels, states, "decay")
    try requireCount(row, in: decay.count, "decay")
    if !skip.isEmpty { try requireCount(channels, in: skip.count, "skip") }
    try requireCount(try checkedProduct(sequences, row, "state"), in: state.count, "state")
    try requireCount(try checkedProduct(layout.tokens, channels, "output"), in: output.count, "output")
    var z = lspan_matrix(data: nil, dtype: .f32, row_stride: 0)
    if let gate {
      guard gate.layout.tokens == layout.tokens, gate.layout.columns == channels else {
        throw LongspanError(
          .badShape, "\(what()): the gate is \(gate.layout.tokens) x \(gate.layout.columns)")
      }
      z = try gate.matrix("gate")
    }
    let u = try input.matrix("input")
    let dt = try steps.matrix("steps")
    let first = state.mutableBaseAddress
    let out = lspan_matrix_out(
      data: output.mutableBaseAddress.map(UnsafeMutableRawPointer.init), dtype: .f32,
      row_stride: Int64(channels))
    let begins = offsets.span
    var call = lspan_selective_scan(
      sequences: Int64(sequences), indptr: begins.baseAddress, channels: Int64(channels),
      state_size: Int64(states), groups: Int64(b.layout.heads), input: u, dt: dt, rule: lspan_dt_rule(),
      a: decay.baseAddress, b: b.heads, c: c.heads, d: skip.baseAddress, gate: z, initial_state: first,
      final_state: first, state_stride: Int64(row), output: out, kept: kept)
    try rule.withCode(channels: channels) { rule throws(LongspanError) in
      call.rule = rule
      if method == .update {
        try LongspanError.check(lspan_selective_update(handle, &call), what())
      } else {
        var bytes = 0
        try LongspanError.check(lspan_selective_scan_workspace_size(handle, &call, &bytes), what())
        let scratch = try workspace.reserve(bytes)
        try LongspanError.check(lspan_selective_scan_run(handle, &call, scratch, bytes), what())
      }
    }
  }
}
