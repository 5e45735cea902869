/// The merges of a byte-pair encoding, by the pair of tokens that they join.
struct MergeTable: Sendable {
  struct Pair: Hashable, Sendable {
    let left: Int32
    let right: Int32
  }

  struct Merge: Sendable {
    /// The merge's place in the file's list: lower ranks are done first.
    let rank: Int32
    /// The token that the pair becomes.
    let token: Int32
  }

  private(set) var merges: [Pair: Merge] = [:]

  init(minimumCapacity: Int) {
    merges.reserveCapacity(minimumCapacity)
  }

  /// Adds a merge. The first of two merges of the same pair wins.
  mutating func add(left: Int32, right: Int32, merge: Merge) {
    let pair = Pair(left: left, right: right)
    if merges[pair] == nil { merges[pair] = merge }
  }

  func merge(left: Int32, right: Int32) -> Merge? {
    merges[Pair(left: left, right: right)]
  }
}

/// Applies merges to one piece of text at a time, keeping its working space between pieces.
///
/// The pair of lowest rank is merged first, the leftmost of equal ranks before the others. A queue of candidate
/// pairs over a linked list of tokens makes this O(n log n) for a piece of n bytes.
struct PairMerger {
  private struct Node {
    var token: Int32
    var previous: Int
    var next: Int
    /// The merge of this node with the next one, or nil.
    var merge: MergeTable.Merge?
  }

  private struct Candidate {
    let rank: Int32
    let node: Int

    func precedes(_ other: Candidate) -> Bool {
      rank != other.rank ? rank < other.rank : node < other.node
    }
  }

  private static let none = -1
  private let table: MergeTable
  private var nodes: [Node] = []
  /// A binary heap: the candidate that precedes all others is first. Entries go stale when a neighbour is
  /// merged away, and are then skipped.
  private var heap: [Candidate] = []

  init(_ table: MergeTable) {
    self.table = table
  }

  /// Merges `tokens` and appends what is left of them to `result`.
  mutating func merge(_ tokens: [Int32], into result: inout [Int32]) {
    guard tokens.count > 1 else {
      result.append(contentsOf: tokens)
      return
    }
    nodes.removeAll(keepingCapacity: true)
    heap.removeAll(keepingCapacity: true)
    for (index, token) in tokens.enumerated() {
      let next = index + 1 < tokens.count ? index + 1 : Self.none
      nodes.append(Node(token: token, previous: index - 1, next: next, merge: nil))
    }
    for index in 0..<nodes.count - 1 { findMerge(at: index) }

    while let candidate = pop() {
      guard let merge = nodes[candidate.node].merge, merge.rank == candidate.rank else { continue }
      join(candidate.node, merge.token)
    }

    // The first node is never merged into another, so the list begins there.
    var index = 0
    while index != Self.none {
      result.append(nodes[index].token)
      index = nodes[index].next
    }
  }

  private mutating func join(_ left: Int, _ token: Int32) {
    let right = nodes[left].next
    let after = nodes[right].next
    nodes[left].token = token
    nodes[left].next = after
    nodes[right].merge = nil
    if after != Self.none { nodes[after].previous = left }
    findMerge(at: left)
    if nodes[left].previous != Self.none { findMerge(at: nodes[left].previous) }
  }

  private mutating func findMerge(at index: Int) {
    let next = nodes[index].next
    guard next != Self.none, let merge = table.merge(left: nodes[index].token, right: nodes[next].token)
    else {
      nodes[index].merge = nil
      return
    }
    nodes[index].merge = merge
    push(Candidate(rank: merge.rank, node: index))
  }

  private mutating func push(_ candidate: Candidate) {
    var child = heap.count
    heap.append(candidate)
    while child > 0 {
      let parent = (child - 1) / 2
      guard heap[child].precedes(heap[parent]) else { break }
      heap.swapAt(child, parent)
      child = parent
    }
  }

  private mutating func pop() -> Candidate? {
    guard let last = heap.popLast() else { return nil }
    guard let first = heap.first else { return last }
    heap[0] = last
    var parent = 0
    while true {
      var child = 2 * parent + 1
      guard child < heap.count else { break }
      if child + 1 < heap.count, heap[child + 1].precedes(heap[child]) { child += 1 }
      guard heap[child].precedes(heap[parent]) else { break }
      heap.swapAt(child, parent)
      parent = child
    }
    return first
  }
}
