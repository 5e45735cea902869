/// A text of tokens, and where each of its n-grams ended last.
///
/// The n-grams form a trie whose nodes are numbered, so that finding one is exact and takes as many look-ups as it has
/// tokens, however long the text is.
public struct NGramIndex: Sendable {
  /// The longest n-gram that ends the text and stands in it before.
  public struct Match: Sendable, Equatable {
    /// Its tokens, n.
    public let length: Int
    /// Place in the text of the token after its latest earlier occurrence.
    public let end: Int

    /// A match of `length` tokens that ends before `end`.
    public init(length: Int, end: Int) {
      self.length = length
      self.end = end
    }
  }

  /// Tokens of the shortest and longest n-grams that are looked for.
  public let lengths: ClosedRange<Int>
  /// The tokens so far.
  public private(set) var text: [Int32] = []
  /// What ``text`` ends with, if it stands in it before.
  public private(set) var match: Match?

  /// An n-gram by that of its tokens but the last.
  private struct Edge: Hashable {
    let parent: Int
    let token: Int32
  }
  private var nodes: [Edge: Int] = [:]
  /// Place in the text of the token after the latest occurrence, by node; the root's is not used.
  private var ends = [0]
  /// Nodes of the n-grams that end the text, by n, as far as it has that many tokens; the root for 0.
  private var suffixes = [0]

  /// Makes an index of an empty text.
  ///
  /// - Parameter lengths: of at least 1.
  public init(lengths: ClosedRange<Int>) {
    precondition(lengths.lowerBound >= 1, "an n-gram has at least 1 token")
    self.lengths = lengths
  }

  /// Adds a token to the text's end.
  ///
  /// - Complexity: O(n) look-ups for the longest n.
  public mutating func append(_ token: Int32) {
    text.append(token)
    match = nil
    if suffixes.count <= lengths.upperBound { suffixes.append(0) }
    // from the longest down, because each extends the one of a token fewer that ended the text before
    for length in (1..<suffixes.count).reversed() {
      let edge = Edge(parent: suffixes[length - 1], token: token)
      if let node = nodes[edge] {
        if match == nil, lengths.contains(length) { match = Match(length: length, end: ends[node]) }
        suffixes[length] = node
        ends[node] = text.count
      } else {
        nodes[edge] = ends.count
        suffixes[length] = ends.count
        ends.append(text.count)
      }
    }
  }

  /// The `limit` tokens that follow if the text goes on as it did after ``match``: where those reach the text's end, they
  /// go on with their own beginning, as a copy in LZ77 does. Empty without a match.
  public func continuation(limit: Int) -> [Int32] {
    guard let match, limit > 0 else { return [] }
    let period = text.count - match.end
    return (0..<limit).map { text[match.end + $0 % period] }
  }
}
