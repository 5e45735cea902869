import Longspan
import LongspanKernels

/// What one cache policy gave on a text.
public struct PolicyMeasurement: Sendable, Equatable {
  /// The cache policy, as `--kv` takes it.
  public let policy: String
  /// How well the text was predicted, and what the cache held at the end of the first window.
  public let perplexity: PerplexityReport
  /// Tokens of the text over the seconds that predicting it took, with the logits of every token.
  public let scoringTokensPerSecond: Double
  /// Tokens of a prompt over the seconds that reading it took, with logits of its last token only.
  public let readingTokensPerSecond: Double
  /// Seconds of each token generated after the prompt, in order.
  public let decodeSeconds: [Double]

  /// The median of ``decodeSeconds``.
  public var medianDecodeSeconds: Double {
    let sorted = decodeSeconds.sorted()
    let middle = sorted.count / 2
    guard !sorted.isEmpty else { return 0 }
    return sorted.count % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2
  }

  /// One over ``medianDecodeSeconds``: tokens in which a policy compresses its cache do not count.
  public var decodeTokensPerSecond: Double { 1 / max(medianDecodeSeconds, 1e-9) }
}

/// Runs one model on one text with several cache policies, to see what each costs and saves.
///
/// First the perplexities of all policies are taken, then all read a prompt, the text's first window, and generate after it,
/// so that the runs that are timed against each other are alike.
///
/// ```swift
/// let comparison = PolicyComparison(contextLength: 8192)
/// for result in try comparison.run(model, tokens: tokens, policies: policies) {
///   print(result.policy, result.perplexity.perplexity, result.perplexity.cacheBytes, result.decodeTokensPerSecond)
/// }
/// ```
public struct PolicyComparison: Sendable {
  /// Tokens of a window of the text.
  public var contextLength: Int
  /// Tokens read at once.
  public var chunk: Int
  /// How keys and values are stored.
  public var cacheType: ElementType
  /// Tokens to generate, greedily and past the model's end-of-text tokens.
  public var generated: Int

  /// The most tokens to generate.
  static let mostGenerated = 1 << 30

  /// A comparison over a window of `contextLength` tokens.
  public init(contextLength: Int, chunk: Int = 512, cacheType: ElementType = .f32, generated: Int = 64) {
    self.contextLength = contextLength
    self.chunk = chunk
    self.cacheType = cacheType
    self.generated = generated
  }

  /// Runs every policy.
  ///
  /// - Parameters:
  ///   - tokens: the text, at least two.
  ///   - policies: at least one, each a different one.
  ///   - progress: called after each chunk and each generated token, with tokens of all policies as units.
  /// - Returns: a measurement for each policy, in their order.
  /// - Throws: ``/LongspanKernels/LongspanError`` as ``PerplexityEvaluation/run(_:tokens:progress:)`` does, and if a
  ///   policy comes twice or the tokens to generate are out of range.
  public func run(
    _ model: any LanguageModel, tokens: [Int32], policies: [any KVCachePolicy],
    progress: ProgressHandler? = nil
  ) throws(LongspanError) -> [PolicyMeasurement] {
    try policies.requireDifferent()
    guard generated >= 1, generated <= Self.mostGenerated else {
      throw LongspanError(
        .invalidArgument,
        "\(generated) tokens to generate are out of range, which is 1 to \(Self.mostGenerated)")
    }
    guard contextLength >= 2 else {
      throw LongspanError(
        .invalidArgument, "context: \(contextLength) is below 2, so no token could be predicted")
    }
    let prompt = Array(tokens.prefix(contextLength))
    // what the last policy's cache needs is known before the first has read anything
    for policy in policies { _ = try generator(model, policy, prompt.count) }
    try model.warmUp(cacheType: cacheType)

    let total = policies.count * (tokens.count + prompt.count + generated)
    var done = 0
    func update(_ stage: String, _ completed: Int) -> Bool {
      progress?(ProgressUpdate(stage: stage, completed: done + completed, total: total)) ?? true
    }
    let clock = ContinuousClock()
    var scored: [(report: PerplexityReport, seconds: Double)] = []
    for policy in policies {
      let evaluation = PerplexityEvaluation(
        contextLength: contextLength, chunk: chunk, cacheType: cacheType, policy: policy)
      let start = clock.now
      let report = try evaluation.run(model, tokens: tokens) { update("scoring", $0.completed) }
      scored.append((report, (clock.now - start).seconds))
      done += tokens.count
    }
    var results: [PolicyMeasurement] = []
    for (policy, score) in zip(policies, scored) {
      var generator = try generator(model, policy, prompt.count)
      let start = clock.now
      try generator.read(prompt, chunk: chunk) { update("reading", $0.completed) }
      let readSeconds = (clock.now - start).seconds
      done += prompt.count
      // the first token is drawn from what reading left: nothing is run for it
      _ = try generator.next()
      var decodeSeconds: [Double] = []
      for _ in 0..<generated {
        let start = clock.now
        _ = try generator.next()
        decodeSeconds.append((clock.now - start).seconds)
        done += 1
        guard update("generating", 0) else {
          throw LongspanError(.cancelled, "generating: stopped at \(decodeSeconds.count) of \(generated)")
        }
      }
      results.append(
        PolicyMeasurement(
          policy: policy.description, perplexity: score.report,
          scoringTokensPerSecond: Double(tokens.count) / max(score.seconds, 1e-9),
          readingTokensPerSecond: Double(prompt.count) / max(readSeconds, 1e-9),
          decodeSeconds: decodeSeconds))
    }
    return results
  }

  private func generator(
    _ model: any LanguageModel, _ policy: any KVCachePolicy, _ prompt: Int
  ) throws(LongspanError) -> Generator {
    let capacity = prompt + generated
    let generator = try Generator(
      model, sampling: .greedy, seed: 0, policy: policy, cacheType: cacheType, capacity: capacity,
      ignoringEnd: true)
    try generator.requireMemory(forReading: capacity)
    return generator
  }
}
