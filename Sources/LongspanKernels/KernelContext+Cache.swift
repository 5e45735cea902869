import CKernels

/// Lists of slots or of tokens, one after another: what a selection keeps.
public struct SlotLists: Sendable, Equatable {
  /// The entries of all lists.
  public var indices: [Int32]
  /// List l has entries `offsets[l]..<offsets[l + 1]`.
  public var offsets: [Int64]

  /// Lists; a call that takes them checks entries and offsets.
  public init(indices: [Int32], offsets: [Int64]) {
    self.indices = indices
    self.offsets = offsets
  }

  /// Number of lists.
  public var count: Int { offsets.count - 1 }

  /// The entries of a list.
  public subscript(list: Int) -> ArraySlice<Int32> { indices[Int(offsets[list])..<Int(offsets[list + 1])] }
}

/// Which of the scored tokens are kept. C: `lspan_select_scope`.
public enum SelectionScope: Sendable, Equatable {
  /// The `keep` highest of each row: one list a row, of equal counts.
  case row(keep: Int)
  /// The `keep` tokens with the highest sums over all rows: one list for all.
  case shared(keep: Int)
  /// The `keep` highest (row, token) pairs of all rows: one list a row, of any counts.
  case joint(keep: Int)
  /// Every token whose score is at least `threshold`, and at least the `keep` highest of each row.
  case threshold(Float, keep: Int)
}

/// A place of a tensor in memory that it shares with others.
public struct TensorPlace: Sendable, Equatable {
  /// Bytes from the start of the memory to element (0, 0, 0).
  public var byteOffset: Int
  /// Shape and strides of the tensor.
  public var layout: TensorLayout

  /// A place; the call that takes it checks that it lies within the memory.
  public init(byteOffset: Int, layout: TensorLayout) {
    self.byteOffset = byteOffset
    self.layout = layout
  }
}

extension KernelContext {
  /// Scores of LagKV (arXiv 2504.04704): each window of tokens against the one behind it. C: `lspan_lag_scores_run`,
  /// where the formula is.
  ///
  /// - Parameters:
  ///   - keys: `[(windows + 1) * window, Hk, D]`, as they lie in a cache.
  ///   - values: the same shape and type.
  ///   - window: tokens of a window.
  ///   - windows: windows to score.
  ///   - valueWeight: of the values' part; LagKV has 1.
  ///   - scores: `[Hk, windows * window]`, contiguous.
  public func lagScores(
    keys: borrowing TensorView, values: borrowing TensorView, window: Int, windows: Int, valueWeight: Float,
    workspace: inout Workspace, into scores: inout MutableSpan<Float>
  ) throws(LongspanError) {
    let shape = keys.layout
    let scored = try checkedProduct(windows, window, "windows")
    try requireCount(try checkedProduct(shape.heads, scored, "scores"), in: scores.count, "scores")
    guard values.layout.tokens == shape.tokens, values.layout.heads == shape.heads,
      values.layout.columns == shape.columns, values.layout.elementType == shape.elementType
    else { throw LongspanError(.badShape, "values are not of the keys' shape and type") }
    try requireCount(windows == 0 ? 0 : scored + window, in: shape.tokens, "keys")
    var call = lspan_lag_scores(
      heads: Int64(shape.heads), head_dim: Int64(shape.columns), window: Int64(window),
      windows: Int64(windows), keys: keys.heads, values: values.heads, value_weight: valueWeight,
      scores: scores.mutableBaseAddress, score_head_stride: Int64(scored))
    func what() -> String { "lag scores of \(windows) windows of \(window)" }
    var bytes = 0
    try LongspanError.check(lspan_lag_scores_workspace_size(handle, &call, &bytes), what())
    let scratch = try workspace.reserve(bytes)
    try LongspanError.check(lspan_lag_scores_run(handle, &call, scratch, bytes), what())
  }

  /// Chooses tokens by their scores; lists ascend, and among equal scores the lowest token goes first.
  /// C: `lspan_select`.
  ///
  /// - Parameters:
  ///   - scores: `[rows, tokens]`, contiguous; a row's tokens compete.
  ///   - forced: ranges of tokens kept in every row, which count towards `keep`; ascending and disjoint.
  ///   - rowOffsets: `[rows]`, added to the entries of each row's list; empty for none.
  public func select(
    _ scope: SelectionScope, scores: Span<Float>, rows: Int, tokens: Int, forced: [Range<Int>] = [],
    rowOffsets: [Int32] = [], workspace: inout Workspace
  ) throws(LongspanError) -> SlotLists {
    let all = try checkedProduct(rows, tokens, "scores")
    try requireCount(all, in: scores.count, "scores")
    if !rowOffsets.isEmpty { try requireCount(rows, in: rowOffsets.count, "row offsets") }
    let (code, keep, threshold): (lspan_select_scope, Int, Float) =
      switch scope {
      case .row(let keep): (.row, keep, 0)
      case .shared(let keep): (.shared, keep, 0)
      case .joint(let keep): (.joint, keep, 0)
      case .threshold(let least, let keep): (.threshold, keep, least)
      }
    let capacity =
      switch code {
      case .row: try checkedProduct(rows, keep, "kept tokens")
      case .threshold: all
      default: max(0, keep)
      }
    let lists = code == .shared ? 1 : rows
    var chosen = [Int32](repeating: 0, count: capacity)
    var bounds = [Int64](repeating: 0, count: lists + 1)
    let ranges = forced.map { lspan_token_range(begin: Int64($0.lowerBound), end: Int64($0.upperBound)) }
    func what() -> String { "choosing among \(rows) rows of \(tokens) tokens" }
    do {
      var indices = chosen.mutableSpan
      var offsets = bounds.mutableSpan
      let forcedSpan = ranges.span
      let offsetSpan = rowOffsets.span
      var call = lspan_selection(
        scope: code, rows: Int64(rows), tokens: Int64(tokens), scores: scores.baseAddress,
        score_row_stride: Int64(tokens), keep: Int64(keep), threshold: threshold,
        forced: forcedSpan.baseAddress, forced_count: Int64(forcedSpan.count),
        row_offsets: offsetSpan.baseAddress, indices: indices.mutableBaseAddress, capacity: Int64(capacity),
        indptr: offsets.mutableBaseAddress)
      var bytes = 0
      try LongspanError.check(lspan_select_workspace_size(handle, &call, &bytes), what())
      let scratch = try workspace.reserve(bytes)
      try LongspanError.check(lspan_select(handle, &call, scratch, bytes), what())
    }
    chosen.removeLast(chosen.count - (bounds.last.map(Int.init) ?? 0))
    return SlotLists(indices: chosen, offsets: bounds)
  }

  /// Moves listed slots of a cache together, in place. C: `lspan_compact`.
  ///
  /// - Parameters:
  ///   - lists: one for all heads or one for each: slots, ascending, the first at `destination` or behind it.
  ///   - destination: the slot of each list's first entry.
  ///   - tail: slots that follow every list.
  ///   - memory: what keys, values and positions lie in.
  ///   - keys: `[slots, Hk, D]`.
  ///   - values: the same shape.
  ///   - positions: byte offset and head stride of an Int32 of each head and slot that moves along; `nil` for none.
  public func compact(
    _ lists: SlotLists, destination: Int, tail: Range<Int>, in memory: inout MutableRawSpan,
    keys: TensorPlace, values: TensorPlace, positions: (byteOffset: Int, headStride: Int)? = nil
  ) throws(LongspanError) {
    let shape = keys.layout
    for place in [keys, values] {
      guard place.byteOffset >= 0, place.byteOffset <= memory.byteCount else {
        throw LongspanError(.badIndex, "a tensor begins outside the \(memory.byteCount) bytes of its memory")
      }
      try place.layout.requireBytes(memory.byteCount - place.byteOffset)
    }
    guard values.layout.tokens == shape.tokens, values.layout.heads == shape.heads,
      values.layout.columns == shape.columns
    else { throw LongspanError(.badShape, "values are not of the keys' shape") }
    if let positions {
      let layout = TensorLayout(
        tokens: shape.tokens, heads: shape.heads, columns: 1, tokenStride: 1,
        headStride: positions.headStride)
      guard positions.byteOffset >= 0, positions.byteOffset <= memory.byteCount else {
        throw LongspanError(
          .badIndex, "positions begin outside the \(memory.byteCount) bytes of their memory")
      }
      try layout.requireBytes(memory.byteCount - positions.byteOffset)
    }
    let base = memory.mutableBaseAddress
    func heads(_ place: TensorPlace) -> lspan_heads_out {
      lspan_heads_out(
        data: base?.advanced(by: place.byteOffset), dtype: place.layout.elementType.code,
        token_stride: Int64(place.layout.tokenStride), head_stride: Int64(place.layout.headStride))
    }
    var side = lspan_side_array(
      data: positions.flatMap { base?.advanced(by: $0.byteOffset) }, element_bytes: 4,
      head_stride: Int64(positions?.headStride ?? 0))
    let indices = lists.indices.span
    let offsets = lists.offsets.span
    let status = withUnsafePointer(to: &side) { side in
      var call = lspan_compaction(
        heads: Int64(shape.heads), head_dim: Int64(shape.columns), slots: Int64(shape.tokens),
        lists: Int64(lists.count), indptr: offsets.baseAddress, indices: indices.baseAddress,
        destination: Int64(destination), tail_begin: Int64(tail.lowerBound), tail_end: Int64(tail.upperBound),
        keys: heads(keys), values: heads(values), side: positions == nil ? nil : side,
        side_count: positions == nil ? 0 : 1)
      return lspan_compact(handle, &call)
    }
    try LongspanError.check(status, "compaction of \(lists.count) lists from slot \(destination) on")
  }

  /// Rotates cached keys from their positions p to p + shift, in place (Su et al. 2021, eq. 16). C: `lspan_rope_shift`.
  ///
  /// - Parameters:
  ///   - keys: `[tokens, heads, D]`.
  ///   - shifts: `[heads, tokens]`, contiguous, or `[tokens]` for all heads alike.
  ///   - table: angles of the positions `tableStart` and on, which take in every shift.
  ///   - inverse: rotates by -shift.
  public func shiftPositions(
    of keys: inout MutableTensorView, by shifts: Span<Int32>, table: borrowing RotaryTable, tableStart: Int,
    layout: RotaryLayout, inverse: Bool = false
  ) throws(LongspanError) {
    let shape = keys.layout
    let isShared = shifts.count == shape.tokens
    if !isShared {
      try requireCount(try checkedProduct(shape.heads, shape.tokens, "shifts"), in: shifts.count, "shifts")
    }
    var call = lspan_rope_shifting(
      layout: layout.code, tokens: Int64(shape.tokens), heads: Int64(shape.heads),
      head_dim: Int64(shape.columns), pairs: Int64(table.pairs), shifts: shifts.baseAddress,
      shift_head_stride: isShared ? 0 : Int64(shape.tokens), inverse: inverse ? 1 : 0,
      table_first: Int64(tableStart), table_rows: Int64(table.tokens),
      cosine: table.cosine.span.baseAddress, sine: table.sine.span.baseAddress, keys: keys.heads)
    try LongspanError.check(lspan_rope_shift(handle, &call), "moving \(shape.tokens) keys to other positions")
  }
}
