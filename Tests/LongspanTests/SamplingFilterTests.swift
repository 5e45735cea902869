import Foundation
import Testing

@testable import Longspan

/// What each filter keeps, against the definition written out with a full sort.
struct SamplingFilterTests {
  private static func sorted(_ candidates: [SamplingCandidate]) -> [SamplingCandidate] {
    candidates.sorted { ($1.logit, $0.token) < ($0.logit, $1.token) }
  }

  private static func probabilities(_ candidates: [SamplingCandidate]) -> [Double] {
    let largest = Double(candidates.map(\.logit).max() ?? 0)
    let weights = candidates.map { exp(Double($0.logit) - largest) }
    let total = weights.reduce(0, +)
    return weights.map { $0 / total }
  }

  private static func plainTopP(_ candidates: [SamplingCandidate], _ mass: Double) -> [SamplingCandidate] {
    let ordered = sorted(candidates)
    var sum = 0.0
    var kept: [SamplingCandidate] = []
    for (candidate, probability) in zip(ordered, probabilities(ordered)) where sum < mass {
      kept.append(candidate)
      sum += probability
    }
    return kept
  }

  private static func plainMinP(_ candidates: [SamplingCandidate], _ fraction: Double) -> [SamplingCandidate]
  {
    let ordered = sorted(candidates)
    let probabilities = probabilities(ordered)
    return zip(ordered, probabilities).filter { $0.1 >= fraction * probabilities[0] }.map(\.0)
  }

  /// Logits with many ties (rounded to halves), or a peaked distribution with a long tail.
  private static func candidates(
    _ count: Int, ties: Bool, _ generator: inout Xoshiro256StarStar
  ) -> [SamplingCandidate] {
    (0..<count).map { index in
      let spread = 10 * generator.nextUnit() + 5 * generator.nextUnit()
      return SamplingCandidate(token: Int32(index), logit: Float(ties ? (2 * spread).rounded() / 2 : spread))
    }
  }

  @Test(arguments: [1, 2, 3, 17, 1000, 20_000], [true, false])
  func filtersKeepWhatTheirDefinitionsSay(count: Int, ties: Bool) {
    let seed = UInt64(count)
    var generator = Xoshiro256StarStar(seed: seed)
    for _ in 0..<(count > 1000 ? 2 : 20) {
      let all = Self.candidates(count, ties: ties, &generator)
      let ordered = Self.sorted(all)
      for k in [1, 2, 5, 40, count - 1, count, count + 1] where k > 0 {
        let kept = SamplingFilter.topK(all, count: k)
        #expect(Self.sorted(kept) == Array(ordered.prefix(k)), "top-k \(k), seed \(seed)")
      }
      // Odd numbers, so that no sum of probabilities lies within rounding of the mass.
      for mass in [0.0137, 0.2371, 0.50931, 0.90173, 0.99871] {
        let kept = SamplingFilter.topP(all, mass: mass)
        #expect(Self.sorted(kept) == Self.plainTopP(all, mass), "top-p \(mass), seed \(seed)")
      }
      for fraction in [0.00137, 0.0513, 0.30719, 0.99173] {
        let kept = SamplingFilter.minP(all, fraction: fraction)
        #expect(Self.sorted(kept) == Self.plainMinP(all, fraction), "min-p \(fraction), seed \(seed)")
      }
    }
  }

  @Test func offMeansAll() {
    var generator = Xoshiro256StarStar(seed: 1)
    let all = Self.candidates(100, ties: false, &generator)
    #expect(SamplingFilter.topK(all, count: 0) == all)
    #expect(SamplingFilter.topP(all, mass: 1) == all)
    #expect(SamplingFilter.minP(all, fraction: 0) == all)
  }

  @Test func theMostProbableAlwaysStays() {
    var generator = Xoshiro256StarStar(seed: 2)
    let all = Self.candidates(1000, ties: true, &generator)
    let best = Self.sorted(all)[0]
    #expect(SamplingFilter.topK(all, count: 1) == [best])
    #expect(SamplingFilter.topP(all, mass: .leastNonzeroMagnitude) == [best])
    #expect(SamplingFilter.minP(all, fraction: 1).contains(best))
  }

  @Test func equalLogitsAreCutByID() {
    let all = (0..<10).map { SamplingCandidate(token: Int32($0), logit: 1) }
    #expect(Self.sorted(SamplingFilter.topK(all.reversed(), count: 3)).map(\.token) == [0, 1, 2])
    #expect(SamplingFilter.topP(all.reversed(), mass: 0.25).map(\.token) == [0, 1, 2])
    #expect(SamplingFilter.minP(all, fraction: 1).count == 10)
  }
}
