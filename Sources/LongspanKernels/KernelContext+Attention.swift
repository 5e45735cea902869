import CKernels

/// Which keys a query sees. C: `lspan_attention`'s causal, window and sinks, where the masks are drawn.
public struct AttentionMask: Sendable, Equatable {
  /// A query at key position p sees keys up to p; queries are aligned with the end of the keys.
  public var isCausal: Bool
  /// Keys a query sees, its own included; `nil` for no limit.
  public var window: Int?
  /// Leading keys seen whatever the window.
  public var sinks: Int

  /// A mask; without arguments it is causal, with no limit.
  public init(isCausal: Bool = true, window: Int? = nil, sinks: Int = 0) {
    self.isCausal = isCausal
    self.window = window
    self.sinks = sinks
  }

  /// A query sees the keys up to its own position.
  public static let causal = AttentionMask()
  /// A query sees every key.
  public static let full = AttentionMask(isCausal: false)
}

/// The parameters of an attention call that are not tensors.
public struct AttentionOptions: Sendable {
  /// Factor of the dot products; `nil` takes 1 / sqrt(D).
  public var scale: Float?
  /// Logit soft-cap; `nil` for none (Gemma 2, section 2).
  public var softcap: Float?
  /// Which keys a query sees.
  public var mask: AttentionMask
  /// For keys that are not rotated yet; `nil` for those that are, or need not be.
  public var keyRotation: KeyRotation?

  /// Options; without arguments causal attention with the scale 1 / sqrt(D).
  public init(
    scale: Float? = nil, softcap: Float? = nil, mask: AttentionMask = .causal,
    keyRotation: KeyRotation? = nil
  ) {
    self.scale = scale
    self.softcap = softcap
    self.mask = mask
    self.keyRotation = keyRotation
  }
}

/// How the packed tokens of a batch divide into sequences: offsets from 0, one more than there are sequences.
public struct RaggedBatch: Sendable, Equatable {
  /// Sequence b has query tokens `queryOffsets[b]..<queryOffsets[b + 1]`, `[B + 1]` from 0.
  public let queryOffsets: [Int64]
  /// Sequence b has keys `keyOffsets[b]..<keyOffsets[b + 1]`, `[B + 1]` from 0.
  public let keyOffsets: [Int64]
  /// Keys that each head of a sequence has, `[B, Hk]`; empty where every head has all of its sequence's.
  public let keyLengths: [Int64]

  /// A batch; offsets are checked by the call that takes it.
  public init(queryOffsets: [Int64], keyOffsets: [Int64], keyLengths: [Int64] = []) {
    self.queryOffsets = queryOffsets
    self.keyOffsets = keyOffsets
    self.keyLengths = keyLengths
  }

  /// One sequence.
  init(_ queries: TensorLayout, _ keys: TensorLayout) {
    self.init(queryOffsets: [0, Int64(queries.tokens)], keyOffsets: [0, Int64(keys.tokens)])
  }

  /// Tiles of `queryTokens` query tokens in all sequences, or sequences.
  static func tiles(_ batch: RaggedBatch, _ queryTokens: Int?) throws(LongspanError) -> Int {
    guard let queryTokens else { return batch.queryOffsets.count - 1 }
    guard queryTokens > 0 else {
      throw LongspanError(.badShape, "query tokens of a list: \(queryTokens) is below 1")
    }
    var tiles = 0
    for (first, end) in zip(batch.queryOffsets, batch.queryOffsets.dropFirst()) where end > first {
      tiles += (Int(end - first) - 1) / queryTokens + 1
    }
    return tiles
  }
}

/// Turns cached keys that are not rotated as attention reads them. C: `lspan_key_rotation`.
public final class KeyRotation: Sendable {
  let layout: RotaryLayout
  let pairs: Int
  let rows: Int
  let cosine: [Float]
  let sine: [Float]
  let positions: [Int32]

  /// Angles of positions 0 ..< `positions`.
  ///
  /// - Parameters:
  ///   - rows: positions of the table.
  ///   - slots: the position of the key in each slot, for packed sequences one after another; empty where a key's slot
  ///     is its position.
  public init(
    rows: Int, inverseFrequencies: [Float], layout: RotaryLayout, slots: [Int32] = []
  ) throws(LongspanError) {
    let table = try RotaryTable(
      positions: (0..<max(0, Int64(rows))).map { $0 }, inverseFrequencies: inverseFrequencies)
    self.layout = layout
    pairs = table.pairs
    self.rows = table.tokens
    cosine = table.cosine
    sine = table.sine
    positions = slots
  }

  /// For one call: the addresses are those of this object's arrays.
  var code: lspan_key_rotation {
    let cosine = cosine
    let sine = sine
    let positions = positions
    let cosines = cosine.span
    let sines = sine.span
    let places = positions.span
    return lspan_key_rotation(
      layout: layout.code, pairs: Int64(pairs), rows: Int64(rows), cosine: cosines.baseAddress,
      sine: sines.baseAddress, positions: places.baseAddress)
  }
}

/// How attention is cut into tasks; the results are the same.
public enum AttentionMethod: Sendable, Equatable {
  /// Tiles of query rows: for many query tokens.
  case prefill
  /// Ranges of keys, merged exactly: for 1 to 8 query tokens a sequence.
  case decode
}

extension KernelContext {
  /// Exact attention with a streamed softmax (Vaswani et al. 2017, eq. 1; Dao et al. 2022, algorithm 1).
  ///
  /// Query head h reads key/value head h / G. C: `lspan_attention_prefill`, `lspan_attention_decode`.
  ///
  /// - Parameters:
  ///   - method: how to cut the call into tasks.
  ///   - queries: `[T, Hq, D]`, D a multiple of 8 up to 256.
  ///   - keys: `[S, Hk, D]`.
  ///   - values: `[S, Hk, D]`, stored like the keys.
  ///   - batch: sequences packed in the token dimensions; `nil` for one sequence.
  ///   - workspace: scratch, grown as needed.
  ///   - output: `[T, Hq, D]`, contiguous.
  /// - Throws: ``LongspanError`` naming what does not fit.
  public func attend(
    _ method: AttentionMethod, queries: borrowing TensorView, keys: borrowing TensorView,
    values: borrowing TensorView, batch: RaggedBatch? = nil, options: AttentionOptions = AttentionOptions(),
    workspace: inout Workspace, into output: inout MutableSpan<Float>
  ) throws(LongspanError) {
    try attend(
      method, queries, keys, values, batch, options, &workspace, &output, logSumExp: nil)
  }

  /// Exact attention that also gives each row's log-sum-exp, `[T, Hq]`, natural logarithm, minus infinity for a row
  /// that sees no key.
  public func attend(
    _ method: AttentionMethod, queries: borrowing TensorView, keys: borrowing TensorView,
    values: borrowing TensorView, batch: RaggedBatch? = nil, options: AttentionOptions = AttentionOptions(),
    workspace: inout Workspace, into output: inout MutableSpan<Float>,
    logSumExp: inout MutableSpan<Float>
  ) throws(LongspanError) {
    try requireCount(
      try checkedProduct(queries.layout.tokens, queries.layout.heads, "log-sum-exp"), in: logSumExp.count,
      "log-sum-exp")
    try attend(
      method, queries, keys, values, batch, options, &workspace, &output,
      logSumExp: logSumExp.mutableBaseAddress)
  }

  private func attend(
    _ method: AttentionMethod, _ queries: borrowing TensorView, _ keys: borrowing TensorView,
    _ values: borrowing TensorView, _ batch: RaggedBatch?, _ options: AttentionOptions,
    _ workspace: inout Workspace, _ output: inout MutableSpan<Float>, logSumExp: UnsafeMutablePointer<Float>?
  ) throws(LongspanError) {
    let batch = batch ?? RaggedBatch(queries.layout, keys.layout)
    // the arrays must outlive the addresses taken of their spans
    defer { withExtendedLifetime((batch, options.keyRotation)) {} }
    var call = try attention(queries, keys, values, batch, options, &output, logSumExp: logSumExp)
    if let rotation = options.keyRotation {
      if !rotation.positions.isEmpty {
        try requireCount(keys.layout.tokens, in: rotation.positions.count, "positions of keys")
      }
      let status = withUnsafePointer(to: rotation.code) { rotation in
        call.key_rotation = rotation
        return run(method, &call, &workspace)
      }
      try status.get()
    } else {
      try run(method, &call, &workspace).get()
    }
  }

  private func run(
    _ method: AttentionMethod, _ call: inout lspan_attention, _ workspace: inout Workspace
  ) -> Result<Void, LongspanError> {
    var bytes = 0
    let (heads, columns) = (call.query_heads, call.head_dim)
    func what() -> String { "attention of \(heads) heads of \(columns)" }
    do throws(LongspanError) {
      switch method {
      case .prefill:
        try LongspanError.check(lspan_attention_prefill_workspace_size(handle, &call, &bytes), what())
        let scratch = try workspace.reserve(bytes)
        try LongspanError.check(lspan_attention_prefill(handle, &call, scratch, bytes), what())
      case .decode:
        try LongspanError.check(lspan_attention_decode_workspace_size(handle, &call, &bytes), what())
        let scratch = try workspace.reserve(bytes)
        try LongspanError.check(lspan_attention_decode(handle, &call, scratch, bytes), what())
      }
      return .success(())
    } catch {
      return .failure(error)
    }
  }

  /// The C call, which points into `batch` and the views: all must outlive it.
  func attention(
    _ queries: borrowing TensorView, _ keys: borrowing TensorView, _ values: borrowing TensorView,
    _ batch: RaggedBatch, _ options: AttentionOptions, _ output: inout MutableSpan<Float>,
    logSumExp: UnsafeMutablePointer<Float>?
  ) throws(LongspanError) -> lspan_attention {
    let q = queries.layout
    let k = keys.layout
    guard values.layout.tokens == k.tokens, values.layout.heads == k.heads else {
      throw LongspanError(
        .badShape,
        "values of \(values.layout.tokens) x \(values.layout.heads) do not match keys of \(k.tokens) x \(k.heads)"
      )
    }
    guard q.columns == k.columns, q.columns == values.layout.columns else {
      throw LongspanError(
        .badShape, "head dimensions \(q.columns), \(k.columns) and \(values.layout.columns) differ")
    }
    guard batch.queryOffsets.count == batch.keyOffsets.count, !batch.queryOffsets.isEmpty,
      batch.queryOffsets.last == Int64(q.tokens), batch.keyOffsets.last == Int64(k.tokens)
    else {
      throw LongspanError(
        .badIndex,
        "batch: offsets must be of one length and end at \(q.tokens) query tokens and \(k.tokens) keys")
    }
    guard batch.keyLengths.isEmpty || batch.keyLengths.count == (batch.keyOffsets.count - 1) * k.heads else {
      throw LongspanError(
        .badShape, "batch: \(batch.keyLengths.count) key lengths are not one for each sequence and head")
    }
    if let window = options.mask.window, window < 1 {
      throw LongspanError(.badValue, "window: \(window) is below 1; leave it out for no window")
    }
    let row = try checkedProduct(q.heads, q.columns, "output")
    try requireCount(try checkedProduct(q.tokens, row, "output"), in: output.count, "output")
    let queryOffsets = batch.queryOffsets.span
    let keyOffsets = batch.keyOffsets.span
    let keyLengths = batch.keyLengths.span
    return lspan_attention(
      sequences: Int64(queryOffsets.count - 1), query_heads: Int64(q.heads), kv_heads: Int64(k.heads),
      head_dim: Int64(q.columns), query_indptr: queryOffsets.baseAddress, kv_indptr: keyOffsets.baseAddress,
      queries: queries.heads, keys: keys.heads, values: values.heads, kv_lengths: keyLengths.baseAddress,
      key_rotation: nil, output: output.mutableBaseAddress,
      output_token_stride: Int64(row), output_head_stride: Int64(q.columns), log_sum_exp: logSumExp,
      scale: options.scale ?? 1 / Float(q.columns).squareRoot(), softcap: options.softcap ?? 0,
      causal: options.mask.isCausal ? 1 : 0, window: Int64(options.mask.window ?? 0),
      sinks: Int64(options.mask.sinks))
  }

  /// Merges attention results over disjoint key sets into the result over their union (Dao et al. 2022, section 3.1).
  ///
  /// - Parameters:
  ///   - outputs: `[parts, rows, headDimension]`.
  ///   - logSumExps: `[parts, rows]`.
  ///   - output: `[rows, headDimension]`.
  ///   - logSumExp: `[rows]`.
  public func mergeAttention(
    parts: Int, rows: Int, headDimension: Int, outputs: Span<Float>, logSumExps: Span<Float>,
    into output: inout MutableSpan<Float>, logSumExp: inout MutableSpan<Float>
  ) throws(LongspanError) {
    let partials = try checkedProduct(parts, rows, "partial results")
    try requireCount(try checkedProduct(partials, headDimension, "outputs"), in: outputs.count, "outputs")
    try requireCount(partials, in: logSumExps.count, "log-sum-exps")
    try requireCount(try checkedProduct(rows, headDimension, "output"), in: output.count, "output")
    try requireCount(rows, in: logSumExp.count, "log-sum-exp")
    try LongspanError.check(
      lspan_attention_merge(
        handle, Int64(parts), Int64(rows), Int64(headDimension), outputs.baseAddress, logSumExps.baseAddress,
        output.mutableBaseAddress, logSumExp.mutableBaseAddress), "merging \(parts) attention results")
  }
}
