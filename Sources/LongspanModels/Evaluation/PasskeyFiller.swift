/// The filler of passkey prompts: five sentences, over and over, to an exact number of tokens.
struct PasskeyFiller: Sendable {
  private static let texts = [
    " The grass is green.", " The sky is blue.", " The sun is yellow.", " Here we go.",
    " There and back again.",
  ]

  /// The tokens of each sentence.
  let sentences: [[Int32]]
  /// Tokens of the five sentences.
  let round: Int

  init(_ tokenizer: BPETokenizer) {
    sentences = Self.texts.map { tokenizer.encode($0) }
    round = sentences.reduce(0) { $0 + $1.count }
  }

  /// Whether the tokenizer has tokens for every sentence.
  var isSpelled: Bool { sentences.allSatisfy { !$0.isEmpty } }

  /// Sentences that have `count` tokens together, in their order but for the fewest that had to be left out to meet the count.
  /// If no choice of whole sentences meets it, the last one is cut. All sentences must be spelled.
  func sentences(tokens count: Int) -> [[Int32]] {
    guard count > 0 else { return [] }
    let rounds = max(0, count / round - 2)
    let rest = count - rounds * round
    var filler = Array(repeatElement(sentences, count: rounds).joined())
    let (chosen, missing) = choose(rest)
    filler += chosen.map { sentences[$0] }
    if missing > 0 { filler.append(Array(sentences[0].prefix(missing))) }
    return filler
  }

  /// A walk through the sentences, again and again in their order, that takes or leaves out each: the sum of those taken is
  /// the greatest up to `most`, and the fewest are left out.
  ///
  /// - Returns: those taken, and the tokens by which the sum falls short, fewer than the shortest sentence has.
  private func choose(_ most: Int) -> (taken: [Int], missing: Int) {
    struct Visit {
      var leftOut: Int
      var tookLast: Bool
    }
    let cycle = sentences.count
    // by tokens taken and by the sentence that comes next
    var visits: [[Visit?]] = Array(repeating: Array(repeating: nil, count: cycle), count: most + 1)
    func offer(_ visit: Visit, _ sum: Int, _ next: Int) {
      if let known = visits[sum][next], known.leftOut <= visit.leftOut { return }
      visits[sum][next] = visit
    }
    offer(Visit(leftOut: 0, tookLast: false), 0, 0)
    for sum in 0...most {
      // twice around, because the sum may be reached at any sentence
      for step in 0..<2 * cycle {
        let next = step % cycle
        guard let visit = visits[sum][next] else { continue }
        offer(Visit(leftOut: visit.leftOut + 1, tookLast: false), sum, (next + 1) % cycle)
        let taken = sum + sentences[next].count
        if taken <= most { offer(Visit(leftOut: visit.leftOut, tookLast: true), taken, (next + 1) % cycle) }
      }
    }
    var sum = most
    while sum > 0, visits[sum].allSatisfy({ $0 == nil }) { sum -= 1 }
    let missing = most - sum
    let reached = (0..<cycle).filter { visits[sum][$0] != nil }
    var next = reached.min { (visits[sum][$0]?.leftOut ?? 0) < (visits[sum][$1]?.leftOut ?? 0) } ?? 0
    var taken: [Int] = []
    while sum > 0, let visit = visits[sum][next] {
      next = (next + cycle - 1) % cycle
      guard visit.tookLast else { continue }
      taken.append(next)
      sum -= sentences[next].count
    }
    return (taken.reversed(), missing)
  }
}
