import Foundation
import LongspanKernels
import Testing

@testable import Longspan

/// Drawing tokens: distributions, determinism and faults.
struct SamplerTests {
  private static func tokens(
    _ options: SamplingOptions, seed: UInt64, logits: [Float], count: Int
  ) throws -> [Int32] {
    var sampler = try Sampler(options: options, seed: seed)
    var tokens: [Int32] = []
    for _ in 0..<count { tokens.append(try sampler.sample(logits.span)) }
    return tokens
  }

  /// Pearson's statistic of the counts of `tokens` against `probabilities`, whose zeros must never be drawn.
  private static func chiSquare(_ tokens: [Int32], _ probabilities: [Double]) -> Double {
    var counts = [Double](repeating: 0, count: probabilities.count)
    for token in tokens { counts[Int(token)] += 1 }
    return zip(counts, probabilities).reduce(0) { sum, pair in
      let expected = pair.1 * Double(tokens.count)
      if expected == 0 { return pair.0 == 0 ? sum : .infinity }
      return sum + (pair.0 - expected) * (pair.0 - expected) / expected
    }
  }

  private static func softmax(_ logits: [Float], temperature: Double = 1) -> [Double] {
    let largest = Double(logits.max() ?? 0)
    let weights = logits.map { exp((Double($0) - largest) / temperature) }
    let total = weights.reduce(0, +)
    return weights.map { $0 / total }
  }

  // MARK: Distributions

  /// With 7 degrees of freedom the statistic exceeds 24.3 once in a thousand; the seed is fixed.
  @Test(arguments: [0.5, 1, 2] as [Float])
  func countsFollowTheSoftmax(temperature: Float) throws {
    let logits: [Float] = [0.3, -1, 2, 1.5, -0.2, 0, -.infinity, 1, 0.7]
    let tokens = try Self.tokens(
      SamplingOptions(temperature: temperature), seed: 42, logits: logits, count: 100_000)
    let expected = Self.softmax(logits, temperature: Double(temperature))
    #expect(Self.chiSquare(tokens, expected) < 24.3)
    // The test can fail: a slightly different temperature is told apart.
    let other = Self.softmax(logits, temperature: Double(temperature) * 1.05)
    #expect(Self.chiSquare(tokens, other) > 24.3)
  }

  /// The filters cut before the temperature flattens what is left.
  @Test func countsFollowTheFilteredSoftmax() throws {
    let logits = [0.4, 0.3, 0.15, 0.1, 0.05].map { Float(log($0)) }
    // Top-k keeps 0.4, 0.3, 0.15, 0.1, renormalized 0.421, 0.316, 0.158, 0.105. Top-p keeps the first three
    // (0.737 < 0.8 <= 0.895); min-p drops the third (0.15 / 0.4 = 0.375).
    let options = SamplingOptions(temperature: 2, topK: 4, topP: 0.8, minP: 0.4)
    let tokens = try Self.tokens(options, seed: 7, logits: logits, count: 100_000)
    let weights = [sqrt(0.4), sqrt(0.3), 0, 0, 0]
    let expected = weights.map { $0 / (weights[0] + weights[1]) }
    #expect(Self.chiSquare(tokens, expected) < 10.8)
  }

  // MARK: Determinism

  @Test func aSeedFixesTheTokens() throws {
    let logits = (0..<1000).map { Float(($0 * 7919) % 1000) / 200 }
    let options = SamplingOptions(temperature: 0.8, topK: 40, topP: 0.95, minP: 0.05)
    let first = try Self.tokens(options, seed: 1, logits: logits, count: 200)
    #expect(try Self.tokens(options, seed: 1, logits: logits, count: 200) == first)
    #expect(try Self.tokens(options, seed: 2, logits: logits, count: 200) != first)
  }

  /// The tokens of a seed are part of the contract: these must never change.
  @Test func tokensOfASeedArePinned() throws {
    let logits = (0..<100).map { Float(($0 * 37) % 100) / 10 }
    let tokens = try Self.tokens(SamplingOptions(), seed: 2026, logits: logits, count: 10)
    #expect(tokens == [54, 27, 81, 89, 81, 80, 81, 81, 81, 27])
  }

  @Test func generatorsEqualTheirReferences() {
    // First outputs of the authors' C code.
    var mixer = SplitMix64(state: 1_234_567)
    let mixed: [UInt64] = [
      6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423,
      4_593_380_528_125_082_431, 16_408_922_859_458_223_821,
    ]
    #expect(mixed.map { _ in mixer.next() } == mixed)
    var generator = Xoshiro256StarStar(state: (1, 2, 3, 4))
    let drawn: [UInt64] = [
      11520, 0, 1_509_978_240, 1_215_971_899_390_074_240, 1_216_172_134_540_287_360, 607_988_272_756_665_600,
    ]
    #expect(drawn.map { _ in generator.next() } == drawn)
  }

  @Test func unitNumbersFillTheInterval() {
    var generator = Xoshiro256StarStar(seed: 3)
    let numbers = (0..<100_000).map { _ in generator.nextUnit() }
    #expect(numbers.allSatisfy { $0 >= 0 && $0 < 1 })
    #expect(abs(numbers.reduce(0, +) / 100_000 - 0.5) < 0.003)
  }

  @Test func exponentialEqualsTheLibrarys() {
    #expect(portableExponential(0) == 1)
    #expect(portableExponential(-.infinity) == 0)
    #expect(portableExponential(-709) == 0)
    for index in 0..<100_000 {
      let x = -Double(index) * 0.00707
      let expected = exp(x)
      #expect(abs(portableExponential(x) - expected) <= 2 * expected.ulp, "\(x)")
    }
  }

  // MARK: Greedy and extremes

  @Test func greedyTakesTheFirstOfTheLargest() throws {
    let logits: [Float] = [-1, 3, -.infinity, 3, 2, 3]
    #expect(try Self.tokens(.greedy, seed: 0, logits: logits, count: 3) == [1, 1, 1])
    #expect(try Self.tokens(.greedy, seed: 0, logits: [-0.0, 0.0], count: 1) == [0])
  }

  @Test(arguments: [
    SamplingOptions(temperature: 1e-30), SamplingOptions(topK: 1), SamplingOptions(topP: 1e-30),
    SamplingOptions(minP: 1), SamplingOptions(temperature: 1e30, topK: 1),
  ])
  func extremesAreGreedy(options: SamplingOptions) throws {
    let logits = (0..<500).map { Float(($0 * 7919) % 500) }
    let best = try #require(logits.firstIndex(of: 499))
    let tokens = try Self.tokens(options, seed: 9, logits: logits, count: 20)
    #expect(tokens == [Int32](repeating: Int32(best), count: 20))
  }

  @Test func hugeLogitsAndOneTokenWork() throws {
    let greatest = Float.greatestFiniteMagnitude
    let extremes: [Float] = [-greatest, greatest]
    #expect(try Self.tokens(SamplingOptions(), seed: 1, logits: extremes, count: 3) == [1, 1, 1])
    let filters = SamplingOptions(topK: 50, topP: 0.5)
    #expect(try Self.tokens(filters, seed: 1, logits: [-1e4], count: 2) == [0, 0])
    let allowed: [Float] = [-.infinity, -.infinity, 5, -.infinity]
    let hot = SamplingOptions(temperature: 100)
    #expect(try Self.tokens(hot, seed: 1, logits: allowed, count: 3) == [2, 2, 2])
  }

  // MARK: Faults

  @Test(arguments: [
    (SamplingOptions(temperature: -0.1), "temperature is -0.1, but must be a finite number of at least 0"),
    (SamplingOptions(temperature: .nan), "temperature is nan, but must be a finite number of at least 0"),
    (
      SamplingOptions(temperature: .infinity), "temperature is inf, but must be a finite number of at least 0"
    ),
    (SamplingOptions(topK: -1), "top-k is -1, but must be at least 0 (0 keeps all tokens)"),
    (SamplingOptions(topP: 0), "top-p is 0.0, but must be above 0 and at most 1"),
    (SamplingOptions(topP: 1.5), "top-p is 1.5, but must be above 0 and at most 1"),
    (SamplingOptions(topP: .nan), "top-p is nan, but must be above 0 and at most 1"),
    (SamplingOptions(minP: -0.5), "min-p is -0.5, but must be from 0 to 1"),
    (SamplingOptions(minP: 1.25), "min-p is 1.25, but must be from 0 to 1"),
    (SamplingOptions(minP: .nan), "min-p is nan, but must be from 0 to 1"),
  ])
  func badOptionsAreNamed(options: SamplingOptions, message: String) {
    #expect(throws: LongspanError(.invalidArgument, message)) { try Sampler(options: options, seed: 0) }
  }

  @Test(arguments: [
    SamplingOptions.greedy, SamplingOptions(), SamplingOptions(topK: 2, topP: 0.5, minP: 0.1),
  ])
  func badLogitsAreNamed(options: SamplingOptions) throws {
    let faults: [([Float], String)] = [
      ([], "there are 0 logits to sample from"),
      ([1, .nan, 2], "the logit of token 1 is nan"),
      ([.nan, 1], "the logit of token 0 is nan"),
      ([1, 2, .infinity], "the logit of token 2 is inf"),
      ([-.infinity, -.infinity], "all 2 logits are minus infinity: no token is allowed"),
    ]
    for (logits, message) in faults {
      #expect(throws: LongspanError(.invalidArgument, message)) {
        try Self.tokens(options, seed: 0, logits: logits, count: 1)
      }
    }
  }
}
