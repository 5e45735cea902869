import LongspanKernels

/// The lists that cases of chosen tokens call with.
enum BenchmarkLists {
  /// Query tokens of a list in sparse prefill.
  static let queryTokens = 128

  /// For each copy, and in it for each list, the entries of `count` blocks out of `total`, in no order and no entry twice.
  static func random(copies: Int, lists: Int, count: Int, of total: Int) -> [SlotLists] {
    var state: UInt64 = 88_172_645_463_325_252
    // xorshift64 (Marsaglia 2003)
    func next(below limit: Int) -> Int {
      state ^= state << 13
      state ^= state >> 7
      state ^= state << 17
      return Int(state >> 33) % limit
    }
    var all = (0..<Int32(total)).map { $0 }
    let offsets = (0...lists).map { Int64($0 * count) }
    return (0..<copies).map { _ in
      var indices: [Int32] = []
      indices.reserveCapacity(lists * count)
      for _ in 0..<lists {
        // the first steps of a shuffle (Fisher and Yates) leave `count` entries in front
        for place in 0..<count {
          all.swapAt(place, place + next(below: total - place))
          indices.append(all[place])
        }
      }
      return SlotLists(indices: indices, offsets: offsets)
    }
  }

  /// A list for each head of `count` slots out of `total`, spread evenly.
  static func even(heads: Int, count: Int, of total: Int) -> SlotLists {
    let list = (0..<count).map { Int32($0 * total / count) }
    return SlotLists(
      indices: (0..<heads).flatMap { _ in list }, offsets: (0...heads).map { Int64($0 * count) })
  }

  /// Entries of such a list that do not lie in place.
  static func moved(count: Int, of total: Int) -> Int {
    (0..<count).first { $0 * total / count != $0 }.map { count - $0 } ?? 0
  }

  /// The chunk mask of a prompt: of every window the slots spread evenly.
  static func lagWindows(heads: Int, tokens: Int, sink: Int, lag: Int, keep: Int) -> LagWindows {
    let windows = max(0, (tokens - sink) / lag)
    let row = (0..<windows).flatMap { window in
      (0..<keep).map { Int32(sink + window * lag + $0 * lag / keep) }
    }
    return LagWindows(
      leading: min(sink, tokens), lag: lag, rawWindows: 2, keep: keep, keptWindows: windows,
      kept: (0..<heads).flatMap { _ in row })
  }

  /// Pairs of a query and a key that the chunk mask lets it see.
  static func lagPairs(tokens: Int, sink: Int, lag: Int, keep: Int) -> Double {
    let leading = min(sink, tokens)
    var pairs = Double(leading) * Double(leading + 1) / 2
    var first = leading
    var window = 0
    while first < tokens {
      let count = min(lag, tokens - first)
      let before = leading + (window > 0 ? lag : 0) + max(0, window - 1) * keep
      pairs += Double(count) * Double(before) + Double(count) * Double(count + 1) / 2
      first += count
      window += 1
    }
    return pairs
  }
}
