import LongspanKernels

/// Lag-relative sparse attention (LRSA, arXiv 2506.11498) with the cache of LagKV (arXiv 2504.04704): of each window of
/// `lag` tokens, each key/value head keeps the share `ratio` that stands out most from the window behind it.
///
/// Slots are the sinks, which stay; what was kept of each older window; and the last windows whole. Let `base` be the slots
/// that are final, at first the sinks, and n the slots of a layer. Once n >= base + 2 lag, with W = (n - base) / lag whole
/// windows, all but the last of them are scored, each against the next; of each, K = ratio * lag tokens stay, in their
/// order; and base grows by (W - 1) K. Kept tokens are not scored again.
///
/// What the sources leave open is decided as follows. K is ratio * lag cut to a whole number, and must be at least 1. Among
/// equal scores the lowest position stays. A channel that is constant in a reference window is left out of its scores (see
/// `lspan_lag_scores`). Sliding-window layers should be skipped.
public struct LagRelativeCompression: KVCachePolicy, Equatable {
  /// When a window is compressed, seen from the attention of the step that completes its reference.
  public enum Mode: String, Sendable, CaseIterable {
    /// After it: its queries see the window whole.
    case useThenCompress
    /// Before it: they see what is kept. Steps end where windows end.
    case compressFirst
  }

  /// How prompts are read.
  public enum Prefill: String, Sendable, CaseIterable {
    /// Window by window, with each window compressed on the way: memory stays small, and attention is sparse. Steps over
    /// several windows give the same result by a mask (``/LongspanKernels/LagWindows``) where positions are absolute.
    case chunked
    /// With exact attention over all of it, and compressed at its end.
    case oneShot
  }

  /// Leading tokens that stay, S.
  public let sink: Int
  /// Tokens of a window, L.
  public let lag: Int
  /// Share of a window that is kept.
  public let ratio: Double
  /// Weight of the values' part of the scores.
  public let valueWeight: Float
  /// Layers that keep everything.
  public private(set) var skippedLayers: Set<Int>
  /// Whether a window is compressed after its queries have seen it whole, or before.
  public let mode: Mode
  /// How prompts are read.
  public let prefill: Prefill
  /// How kept keys are positioned.
  public let positions: KVPositions
  /// Tokens kept of a window, K.
  public let keep: Int
  /// Slots that are final, by layer; the sinks where there is no entry.
  private var bases: [Int: Int] = [:]
  /// Of the step that is under way, by layer: what its whole windows but the last keep.
  private var chosen: [Int: SlotLists] = [:]

  /// - Throws: ``/LongspanKernels/LongspanError`` naming the parameter that is out of range: sink at least 0, lag at
  ///   least 1, ratio above 0 and at most 1 with ratio * lag at least 1, a finite value weight of at least 0; or
  ///   one-shot prefill with `compressFirst`, in which a prompt's queries would lose the keys that they attend to.
  public init(
    sink: Int = 16, lag: Int = 1024, ratio: Double = 0.5, valueWeight: Float = 1,
    skippedLayers: Set<Int> = [],
    mode: Mode = .useThenCompress, prefill: Prefill = .chunked, positions: KVPositions = .absolute
  ) throws(LongspanError) {
    func refuse(_ what: String) -> LongspanError { LongspanError(.invalidArgument, "lagkv: \(what)") }
    guard sink >= 0, sink <= 1 << 30 else { throw refuse("sink \(sink) is out of range, which is 0 to 2^30") }
    guard lag >= 1, lag <= 1 << 30 else { throw refuse("lag \(lag) is out of range, which is 1 to 2^30") }
    guard ratio > 0, ratio <= 1 else { throw refuse("ratio \(ratio) is out of range, which is above 0 to 1") }
    let keep = Int(ratio * Double(lag))
    guard keep >= 1 else { throw refuse("ratio \(ratio) of a lag of \(lag) keeps no token of a window") }
    guard valueWeight >= 0, valueWeight.isFinite else {
      throw refuse("weight \(valueWeight) is out of range, which is 0 and above")
    }
    guard mode == .useThenCompress || prefill == .chunked else {
      throw refuse("compressing first needs chunked prefill, not one-shot")
    }
    self.sink = sink
    self.lag = lag
    self.ratio = ratio
    self.valueWeight = valueWeight
    self.skippedLayers = skippedLayers
    self.mode = mode
    self.prefill = prefill
    self.positions = positions
    self.keep = keep
  }

  /// As `--kv` takes it.
  public var description: String {
    var parts = ["sink=\(sink)", "lag=\(lag)", "ratio=\(ratio)", "positions=\(positions.rawValue)"]
    if valueWeight != 1 { parts.append("weight=\(valueWeight)") }
    if !skippedLayers.isEmpty {
      parts.append("skip=" + skippedLayers.sorted().map(String.init).joined(separator: "+"))
    }
    if mode != .useThenCompress { parts.append("mode=\(mode.rawValue)") }
    if prefill != .chunked { parts.append("prefill=\(prefill.rawValue)") }
    return "lagkv:" + parts.joined(separator: ",")
  }

  public func check(_ shape: KVShape) throws(LongspanError) {
    if let layer = skippedLayers.first(where: { $0 < 0 || $0 >= shape.layers }) {
      throw LongspanError(
        .invalidArgument, "lagkv: layer \(layer) to skip is outside 0 to \(shape.layers - 1)")
    }
  }

  public func policy(forLayers layers: Range<Int>) -> any KVCachePolicy {
    var policy = self
    policy.skippedLayers = Set(skippedLayers.filter(layers.contains).map { $0 - layers.lowerBound })
    return policy
  }

  public mutating func reset() {
    bases = [:]
    chosen = [:]
  }

  private func base(_ layer: Int) -> Int { bases[layer] ?? sink }

  /// The size law: slots after `tokens` tokens, read in one go or window by window.
  public func slots(afterReading tokens: Int) -> Int {
    guard tokens >= sink + 2 * lag else { return tokens }
    let raw = tokens - sink
    return sink + keep * (raw / lag - 1) + lag + raw % lag
  }

  public func slots(afterReading tokens: Int, layer: Int) -> Int {
    skippedLayers.contains(layer) ? tokens : slots(afterReading: tokens)
  }

  private func isExact(_ cache: borrowing KVCache) -> Bool { prefill == .oneShot && cache.phase == .prefill }

  public func stepLength(limit: Int, in cache: borrowing KVCache) -> Int {
    guard let layer = (0..<cache.shape.layers).first(where: { !skippedLayers.contains($0) }), keep < lag,
      !isExact(cache)
    else { return limit }
    let raw = cache.slots(layer: layer) - base(layer)
    switch (mode, positions) {
    case (.useThenCompress, .absolute): return limit
    // the step ends where the next window may be compressed, before which no later query may come
    case (.useThenCompress, .renumbered): return min(limit, max(1, 2 * lag - raw))
    case (.compressFirst, _): return min(limit, max(1, raw < lag ? lag - raw : 2 * lag - raw))
    }
  }

  public mutating func didAppend(
    layer: Int, to cache: inout KVCache, on context: KernelContext, workspace: inout Workspace
  ) throws(LongspanError) -> KVVisibility {
    guard !skippedLayers.contains(layer), keep < lag, !isExact(cache) else { return .all }
    let raw = cache.slots(layer: layer) - base(layer)
    guard raw >= 2 * lag else { return .all }
    switch mode {
    case .compressFirst:
      try compress(layer, of: &cache, on: context, workspace: &workspace)
      return .all
    case .useThenCompress:
      // queries of the first two windows see everything
      guard raw > 2 * lag else { return .all }
      let windows = raw / lag - 1
      let lists = try choose(layer, windows, of: cache, on: context, workspace: &workspace)
      chosen[layer] = lists
      return .lagWindows(
        LagWindows(
          leading: base(layer), lag: lag, rawWindows: 2, keep: keep, keptWindows: windows, kept: lists.indices
        ))
    }
  }

  public mutating func didAttend(
    in cache: inout KVCache, on context: KernelContext, workspace: inout Workspace
  ) throws(LongspanError) {
    guard !isExact(cache) else { return }
    try compressAll(&cache, on: context, workspace: &workspace)
  }

  public mutating func didEndPrefill(
    in cache: inout KVCache, on context: KernelContext, workspace: inout Workspace
  ) throws(LongspanError) {
    try compressAll(&cache, on: context, workspace: &workspace)
  }

  private mutating func compressAll(
    _ cache: inout KVCache, on context: KernelContext, workspace: inout Workspace
  ) throws(LongspanError) {
    for layer in 0..<cache.shape.layers where !skippedLayers.contains(layer) {
      guard cache.slots(layer: layer) - base(layer) >= 2 * lag else { continue }
      KernelProfile.setTag(cache.shape.firstLayer + layer)
      try compress(layer, of: &cache, on: context, workspace: &workspace)
    }
    chosen = [:]
  }

  /// Compresses all whole windows of a layer but the last.
  private mutating func compress(
    _ layer: Int, of cache: inout KVCache, on context: KernelContext, workspace: inout Workspace
  ) throws(LongspanError) {
    let base = base(layer)
    let windows = (cache.slots(layer: layer) - base) / lag - 1
    if keep < lag {
      let rows =
        if let lists = chosen[layer] { lists } else {
          try choose(layer, windows, of: cache, on: context, workspace: &workspace)
        }
      // the lists of a head's windows follow each other, so they are one list
      let heads = SlotLists(
        indices: rows.indices, offsets: (0...cache.shape.heads).map { Int64($0 * windows * keep) })
      try cache.compact(
        layer: layer, keeping: heads, from: base, tail: base + windows * lag, on: context)
    }
    bases[layer] = base + windows * keep
  }

  /// What each head keeps of each window: a list a head and window.
  private func choose(
    _ layer: Int, _ windows: Int, of cache: borrowing KVCache, on context: KernelContext,
    workspace: inout Workspace
  ) throws(LongspanError) -> SlotLists {
    let base = base(layer)
    let scores = try cache.lagScores(
      layer: layer, from: base, lag: lag, windows: windows, valueWeight: valueWeight, on: context,
      workspace: &workspace)
    let rows = cache.shape.heads * windows
    return try context.select(
      .row(keep: keep), scores: scores.span, rows: rows, tokens: lag,
      rowOffsets: (0..<rows).map { Int32(base + $0 % windows * lag) }, workspace: &workspace)
  }
}
