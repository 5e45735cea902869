import LongspanKernels

/// Draws tokens from logits.
///
/// The same options, seed and logits give the same tokens on every machine. Each draw takes one number from
/// the generator; greedy choice takes none.
public struct Sampler: Sendable {
  /// The options that the sampler was made with.
  public let options: SamplingOptions
  private var generator: Xoshiro256StarStar

  /// - Throws: ``/LongspanKernels/LongspanError`` with code `invalidArgument` that names the option that is out of range.
  public init(options: SamplingOptions, seed: UInt64) throws(LongspanError) {
    try options.validate()
    self.options = options
    self.generator = Xoshiro256StarStar(seed: seed)
  }

  /// The next token.
  ///
  /// - Parameter logits: One logit a token, shape (vocabulary). Minus infinity forbids a token.
  /// - Returns: The token's id, its index in `logits`. At temperature 0 the one of largest logit, the first of
  ///   equal ones.
  /// - Throws: ``/LongspanKernels/LongspanError`` with code `invalidArgument` if there are no logits, if one is NaN or plus
  ///   infinity (the message names its token), or if all are minus infinity. The generator is then unchanged.
  public mutating func sample(_ logits: Span<Float>) throws(LongspanError) -> Int32 {
    let best = try Self.mostProbable(logits)
    guard options.temperature > 0 else { return best }

    var candidates: [SamplingCandidate] = []
    candidates.reserveCapacity(logits.count)
    for index in logits.indices where logits[index] > -.infinity {
      candidates.append(SamplingCandidate(token: Int32(index), logit: logits[index]))
    }
    candidates = SamplingFilter.topK(candidates, count: options.topK)
    candidates = SamplingFilter.topP(candidates, mass: Double(options.topP))
    candidates = SamplingFilter.minP(candidates, fraction: Double(options.minP))
    return draw(candidates) ?? best
  }

  /// Draws by inversion: the first candidate at which the running sum of weights exceeds a random part of
  /// their total.
  private mutating func draw(_ candidates: [SamplingCandidate]) -> Int32? {
    let weights = SamplingFilter.weights(candidates, temperature: Double(options.temperature))
    let target = generator.nextUnit() * weights.reduce(0, +)
    var sum = 0.0
    for (candidate, weight) in zip(candidates, weights) {
      sum += weight
      if sum > target { return candidate.token }
    }
    return candidates.last?.token
  }

  private static func mostProbable(_ logits: Span<Float>) throws(LongspanError) -> Int32 {
    guard !logits.isEmpty, logits.count <= Int(Int32.max) else {
      throw LongspanError(.invalidArgument, "there are \(logits.count) logits to sample from")
    }
    var best = 0
    for index in logits.indices {
      let logit = logits[index]
      guard logit < .infinity else {
        throw LongspanError(.invalidArgument, "the logit of token \(index) is \(logit)")
      }
      if logit > logits[best] { best = index }
    }
    guard logits[best] > -.infinity else {
      throw LongspanError(
        .invalidArgument, "all \(logits.count) logits are minus infinity: no token is allowed")
    }
    return Int32(best)
  }
}
