/// A token that may still be drawn.
struct SamplingCandidate: Equatable {
  let token: Int32
  let logit: Float

  /// Whether this candidate comes before `other`: by larger logit, among equal ones by smaller id.
  func precedes(_ other: SamplingCandidate) -> Bool {
    logit != other.logit ? logit > other.logit : token < other.token
  }
}

/// The filters that shorten the list of candidates.
///
/// Each takes candidates in any order and gives them in any order, except where it says otherwise. None
/// of them removes the most probable candidate.
enum SamplingFilter {
  /// The `count` candidates that precede all others, in O(n log count).
  static func topK(_ candidates: [SamplingCandidate], count: Int) -> [SamplingCandidate] {
    guard count > 0, count < candidates.count else { return candidates }
    // A binary heap of the best so far, the worst of them first.
    var heap: [SamplingCandidate] = []
    heap.reserveCapacity(count)
    for candidate in candidates {
      if heap.count < count {
        heap.append(candidate)
        siftUp(&heap)
      } else if candidate.precedes(heap[0]) {
        heap[0] = candidate
        siftDown(&heap)
      }
    }
    return heap
  }

  /// The fewest candidates, taken in order of probability, whose probabilities sum to at least `mass`.
  static func topP(_ candidates: [SamplingCandidate], mass: Double) -> [SamplingCandidate] {
    guard mass < 1, candidates.count > 1 else { return candidates }
    let weights = weights(candidates, temperature: 1)
    let target = mass * weights.reduce(0, +)
    // Candidates of at most this weight have together at most the mass that is left out, so all others reach
    // the target without them. Only the few others need sorting.
    let negligible = (weights.reduce(0, +) - target) / Double(candidates.count) * 0.999
    let order = candidates.indices.filter { weights[$0] > negligible }
      .sorted { candidates[$0].precedes(candidates[$1]) }
    var sum = 0.0
    var kept: [SamplingCandidate] = []
    for index in order {
      kept.append(candidates[index])
      sum += weights[index]
      if sum >= target { break }
    }
    return kept
  }

  /// The candidates at least `fraction` times as probable as the most probable one.
  static func minP(_ candidates: [SamplingCandidate], fraction: Double) -> [SamplingCandidate] {
    guard fraction > 0 else { return candidates }
    let weights = weights(candidates, temperature: 1)
    // The most probable candidate has the weight 1.
    return candidates.indices.filter { weights[$0] >= fraction }.map { candidates[$0] }
  }

  /// The candidates' probabilities at a temperature above 0, up to a common factor: exp((logit - max) / T).
  static func weights(_ candidates: [SamplingCandidate], temperature: Double) -> [Double] {
    let largest = Double(candidates.lazy.map(\.logit).max() ?? 0)
    return candidates.map { portableExponential((Double($0.logit) - largest) / temperature) }
  }

  private static func siftUp(_ heap: inout [SamplingCandidate]) {
    var child = heap.count - 1
    while child > 0 {
      let parent = (child - 1) / 2
      guard heap[parent].precedes(heap[child]) else { return }
      heap.swapAt(child, parent)
      child = parent
    }
  }

  private static func siftDown(_ heap: inout [SamplingCandidate]) {
    var parent = 0
    while true {
      var child = 2 * parent + 1
      guard child < heap.count else { return }
      if child + 1 < heap.count, heap[child].precedes(heap[child + 1]) { child += 1 }
      guard heap[parent].precedes(heap[child]) else { return }
      heap.swapAt(child, parent)
      parent = child
    }
  }
}
