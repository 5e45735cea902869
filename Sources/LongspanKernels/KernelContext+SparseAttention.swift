import CKernels

/// Which keys attention reads: lists of tokens or of blocks of tokens. C: `lspan_sparse_attention`, where the order of
/// the lists is.
public struct KeyLists: Sendable, Equatable {
  /// Tokens of an entry.
  public var block: Int
  /// 1 where all heads share their lists, else Hk.
  public var heads: Int
  /// Query tokens that share a list; `nil` for all of a sequence.
  public var queryTokens: Int?
  /// The entries: token e, or tokens e * ``block`` to e * ``block`` + ``block`` - 1.
  public var lists: SlotLists

  /// Lists; without further arguments of tokens, one for all heads and queries of a sequence.
  public init(_ lists: SlotLists, block: Int = 1, heads: Int = 1, queryTokens: Int? = nil) {
    self.block = block
    self.heads = heads
    self.queryTokens = queryTokens
    self.lists = lists
  }
}

/// The chunk mask of lag-relative sparse attention (arXiv 2506.11498). C: `lspan_lag_attention`, where it is drawn.
public struct LagWindows: Sendable, Equatable {
  /// Leading slots that every query behind them sees.
  public var leading: Int
  /// Slots of a window.
  public var lag: Int
  /// Windows of which a query sees every slot: its own and those before it.
  public var rawWindows: Int
  /// Slots kept of each older window.
  public var keep: Int
  /// Windows that have a list.
  public var keptWindows: Int
  /// `[Hk, keptWindows, keep]` slots.
  public var kept: [Int32]

  /// A mask; the call that takes it checks its parts.
  public init(leading: Int, lag: Int, rawWindows: Int, keep: Int, keptWindows: Int, kept: [Int32]) {
    self.leading = leading
    self.lag = lag
    self.rawWindows = rawWindows
    self.keep = keep
    self.keptWindows = keptWindows
    self.kept = kept
  }
}

extension KernelContext {
  /// Exact attention over listed keys; what is not listed is not read. C: `lspan_sparse_prefill`, `lspan_sparse_decode`.
  ///
  /// The parameters are those of ``attend(_:queries:keys:values:batch:options:workspace:into:)``, whose mask holds on top.
  public func attend(
    _ method: AttentionMethod, to selected: KeyLists, queries: borrowing TensorView,
    keys: borrowing TensorView, values: borrowing TensorView, batch: RaggedBatch? = nil,
    options: AttentionOptions = AttentionOptions(), workspace: inout Workspace,
    into output: inout MutableSpan<Float>
  ) throws(LongspanError) {
    let batch = batch ?? RaggedBatch(queries.layout, keys.layout)
    defer { withExtendedLifetime(batch) {} }
    let call = try attention(queries, keys, values, batch, options, &output, logSumExp: nil)
    let offsets = selected.lists.offsets.span
    let indices = selected.lists.indices.span
    let heads = selected.heads == 1 ? 1 : keys.layout.heads
    guard selected.heads == heads else {
      throw LongspanError(
        .badShape, "lists of \(selected.heads) heads do not go with \(heads) key/value heads")
    }
    try requireCount(
      try RaggedBatch.tiles(batch, selected.queryTokens) * heads + 1, in: offsets.count, "list offsets")
    try requireCount(offsets[offsets.count - 1].clamped, in: indices.count, "list entries")
    var sparse = lspan_sparse_attention(
      attention: call, block: Int64(selected.block), list_heads: Int64(heads),
      query_tokens: Int64(selected.queryTokens ?? 0), indptr: offsets.baseAddress,
      indices: indices.baseAddress)
    var bytes = 0
    let (tokens, slots) = (queries.layout.tokens, keys.layout.tokens)
    func what() -> String { "sparse attention of \(tokens) queries over \(slots) keys" }
    switch method {
    case .prefill:
      try LongspanError.check(lspan_sparse_prefill_workspace_size(handle, &sparse, &bytes), what())
      let scratch = try workspace.reserve(bytes)
      try LongspanError.check(lspan_sparse_prefill(handle, &sparse, scratch, bytes), what())
    case .decode:
      try LongspanError.check(lspan_sparse_decode_workspace_size(handle, &sparse, &bytes), what())
      let scratch = try workspace.reserve(bytes)
      try LongspanError.check(lspan_sparse_decode(handle, &sparse, scratch, bytes), what())
    }
  }

  /// Prefill under the chunk mask of lag-relative sparse attention, of one sequence. C: `lspan_lag_prefill`.
  public func attend(
    through windows: LagWindows, queries: borrowing TensorView, keys: borrowing TensorView,
    values: borrowing TensorView, options: AttentionOptions = AttentionOptions(), workspace: inout Workspace,
    into output: inout MutableSpan<Float>
  ) throws(LongspanError) {
    let batch = RaggedBatch(queries.layout, keys.layout)
    defer { withExtendedLifetime(batch) {} }
    let call = try attention(queries, keys, values, batch, options, &output, logSumExp: nil)
    let perHead = try checkedProduct(windows.keptWindows, windows.keep, "kept slots")
    try requireCount(
      try checkedProduct(keys.layout.heads, perHead, "kept slots"), in: windows.kept.count, "kept slots")
    let kept = windows.kept.span
    var lag = lspan_lag_attention(
      attention: call, leading: Int64(windows.leading), lag: Int64(windows.lag),
      raw_windows: Int64(windows.rawWindows), keep: Int64(windows.keep),
      kept_windows: Int64(windows.keptWindows), kept: kept.baseAddress)
    var bytes = 0
    let (tokens, slots) = (queries.layout.tokens, keys.layout.tokens)
    func what() -> String { "lag attention of \(tokens) queries over \(slots) keys" }
    try LongspanError.check(lspan_lag_prefill_workspace_size(handle, &lag, &bytes), what())
    let scratch = try workspace.reserve(bytes)
    try LongspanError.check(lspan_lag_prefill(handle, &lag, scratch, bytes), what())
  }
}

extension Int64 {
  /// As a count that no array reaches where it is not one.
  fileprivate var clamped: Int { self < 0 ? Int.max : Int(self) }
}
