/// One prompt of a passkey evaluation and what the model said.
public struct PasskeyTrial: Sendable, Equatable {
  /// The cache policy, as `--kv` takes it.
  public let policy: String
  /// Tokens of the prompt.
  public let length: Int
  /// The depth that was asked for, 0 to 1.
  public let depth: Double
  /// Which of the prompts of this length and depth, from 0 on.
  public let sample: Int
  /// Where the needle stands, at the nearest end of a sentence, 0 to 1.
  public let needleDepth: Double
  /// The key that the prompt hides.
  public let key: String
  /// What the model answered.
  public let answer: PasskeyAnswer
  /// Bytes of keys, values and positions once the prompt was read.
  public let cacheBytes: Int
  /// Slots of the layer with the most, then.
  public let cacheSlots: Int
  /// Seconds to read the prompt.
  public let readSeconds: Double
  /// Tokens of the answer.
  public let answerTokens: Int
  /// Seconds to generate them.
  public let answerSeconds: Double
}

/// The answers of every policy at every length and depth.
public struct PasskeyReport: Sendable, Equatable {
  /// By policy, then length, depth and sample, in the order asked for.
  public let trials: [PasskeyTrial]

  /// Means over some trials.
  public struct Summary: Sendable, Equatable {
    /// Trials that it is about.
    public let trials: Int
    /// Share of trials whose key was found.
    public let exact: Double
    /// Mean share of leading digits that match.
    public let partial: Double
    /// The most bytes and slots of a cache.
    public let cacheBytes: Int
    /// The most slots of a cache.
    public let cacheSlots: Int
    /// Tokens of prompts over the time of reading them.
    public let readTokensPerSecond: Double
    /// Tokens of answers over the time of generating them.
    public let answerTokensPerSecond: Double
    /// Of all trials together, reading and answering.
    public let seconds: Double

    /// - Parameter trials: any number; none give zeros.
    public init(_ trials: some Sequence<PasskeyTrial>) {
      let trials = Array(trials)
      let number = Double(max(1, trials.count))
      func sum(_ value: (PasskeyTrial) -> Double) -> Double { trials.reduce(0) { $0 + value($1) } }
      let reading = sum(\.readSeconds)
      let answering = sum(\.answerSeconds)
      self.trials = trials.count
      exact = sum { $0.answer.isExact ? 1 : 0 } / number
      partial = sum(\.answer.partial) / number
      cacheBytes = trials.map(\.cacheBytes).max() ?? 0
      cacheSlots = trials.map(\.cacheSlots).max() ?? 0
      readTokensPerSecond = sum { Double($0.length) } / max(reading, 1e-9)
      answerTokensPerSecond = sum { Double($0.answerTokens) } / max(answering, 1e-9)
      seconds = reading + answering
    }
  }

  /// The trials of one policy, length and depth; `nil` leaves one open.
  public func summary(policy: String? = nil, length: Int? = nil, depth: Double? = nil) -> Summary {
    Summary(
      trials.lazy.filter { trial in
        (policy.map { trial.policy == $0 } ?? true) && (length.map { trial.length == $0 } ?? true)
          && (depth.map { trial.depth == $0 } ?? true)
      })
  }
}
