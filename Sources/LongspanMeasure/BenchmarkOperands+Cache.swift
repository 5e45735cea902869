import LongspanKernels

// Calls that choose tokens, or work on what was chosen.
extension BenchmarkOperands {
  static func attendToSome(
    _ kernel: BenchmarkKernel, _ s: Shape, _ type: ElementType, _ context: KernelContext, _ slot: Int,
    _ inputs: borrowing Inputs, _ out: inout MutableSpan<Float>, _ workspace: inout Workspace
  ) throws(LongspanError) {
    let isDecode = kernel == .sparseDecode
    let tokens = s[isDecode ? "S" : "N"]
    // head-major, as caches hold keys and values
    let layout = TensorLayout(
      type, tokens: tokens, heads: s["Hk"], columns: s["D"], tokenStride: s["D"], headStride: tokens * s["D"])
    let queries = try inputs.first.view(
      slot, TensorLayout(type, tokens: s[isDecode ? "T" : "N"], heads: s["Hq"], columns: s["D"]))
    let keys = try inputs.second.view(isDecode ? 0 : slot, layout)
    let values = try inputs.third.view(isDecode ? 0 : slot, layout)
    if let windows = inputs.windows {
      try context.attend(
        through: windows, queries: queries, keys: keys, values: values, workspace: &workspace, into: &out)
    } else {
      try context.attend(
        isDecode ? .decode : .prefill,
        to: KeyLists(
          inputs.lists[isDecode ? slot : 0], block: s["block"], heads: s["Hk"],
          queryTokens: isDecode ? nil : BenchmarkLists.queryTokens),
        queries: queries, keys: keys, values: values,
        options: AttentionOptions(mask: .full), workspace: &workspace, into: &out)
    }
  }

  static func compress(
    _ kernel: BenchmarkKernel, _ s: Shape, _ type: ElementType, _ context: KernelContext, _ slot: Int,
    _ inputs: borrowing Inputs, _ out: inout MutableSpan<Float>, _ workspace: inout Workspace
  ) throws(LongspanError) {
    func headMajor(_ tokens: Int) -> TensorLayout {
      TensorLayout(
        type, tokens: tokens, heads: s["H"], columns: s["D"], tokenStride: s["D"],
        headStride: tokens * s["D"])
    }
    switch kernel {
    case .lagScores:
      let layout = headMajor((s["P"] + 1) * s["W"])
      try context.lagScores(
        keys: try inputs.second.view(slot, layout), values: try inputs.third.view(slot, layout),
        window: s["W"], windows: s["P"], valueWeight: 1, workspace: &workspace, into: &out)
    case .select:
      _ = try context.select(
        .row(keep: s["K"]), scores: inputs.floats.buffer.span.extracting(inputs.floats.range(slot)),
        rows: s["R"], tokens: s["N"], workspace: &workspace)
    case .compact:
      let layout = headMajor(s["N"])
      var bytes = out.mutableBytes
      try context.compact(
        inputs.lists[0], destination: 0, tail: s["N"]..<s["N"], in: &bytes,
        keys: TensorPlace(byteOffset: 0, layout: layout),
        values: TensorPlace(byteOffset: bytes.byteCount / 2, layout: layout))
    case .lagCompression:
      try compressWindows(s, headMajor((s["P"] + 1) * s["W"]), context, &out, &workspace)
    default:
      // in a compression every token has a shift of its own
      let shifts = (0..<Int32(s["T"])).map { $0 }
      var keys = try MutableTensorView(out.mutableBytes, headMajor(s["T"]))
      try context.shiftPositions(
        of: &keys, by: shifts.span, table: inputs.rotary, tableStart: 0, layout: .halves)
    }
  }

  /// What ``/Longspan/KVCache`` makes of the windows of a layer.
  private static func compressWindows(
    _ s: Shape, _ layout: TensorLayout, _ context: KernelContext, _ out: inout MutableSpan<Float>,
    _ workspace: inout Workspace
  ) throws(LongspanError) {
    let scored = s["P"] * s["W"]
    let half = out.count / 2
    var scores = [Float](repeating: 0, count: s["H"] * scored)
    do {
      var span = scores.mutableSpan
      let bytes = out.span
      try context.lagScores(
        keys: try TensorView(bytes.extracting(0..<half).bytes, layout),
        values: try TensorView(bytes.extracting(half..<bytes.count).bytes, layout), window: s["W"],
        windows: s["P"], valueWeight: 1, workspace: &workspace, into: &span)
    }
    let rows = s["H"] * s["P"]
    var lists = try context.select(
      .row(keep: s["K"]), scores: scores.span, rows: rows, tokens: s["W"],
      rowOffsets: (0..<rows).map { Int32($0 % s["P"] * s["W"]) }, workspace: &workspace)
    lists.offsets = (0...s["H"]).map { Int64($0 * s["P"] * s["K"]) }
    var bytes = out.mutableBytes
    try context.compact(
      lists, destination: 0, tail: scored..<scored + s["W"], in: &bytes,
      keys: TensorPlace(byteOffset: 0, layout: layout),
      values: TensorPlace(byteOffset: bytes.byteCount / 2, layout: layout))
  }
}
