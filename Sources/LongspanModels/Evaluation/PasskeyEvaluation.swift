import Longspan
import LongspanKernels

/// Asks a model for keys hidden in prompts of several lengths at several depths, with each of several cache policies.
///
/// Every prompt is read into an empty cache, and answered greedily. All policies see the same prompts.
///
/// ```swift
/// let evaluation = PasskeyEvaluation(lengths: [2048, 4096], depths: PasskeyTask.depths(10))
/// let report = try evaluation.run(model, policies: [DensePolicy(), try LagRelativeCompression(lag: 128, ratio: 0.5)])
/// print(report.summary(policy: "dense", length: 4096).exact)
/// ```
public struct PasskeyEvaluation: Sendable {
  /// Tokens of a prompt.
  public var lengths: [Int]
  /// 0 (before the filler) to 1 (after it).
  public var depths: [Double]
  /// Prompts of each length and depth, which differ in their keys.
  public var samples: Int
  /// Decides the keys.
  public var seed: UInt64
  /// Whether prompts are wrapped by the model's chat template.
  public var usesChat: Bool
  /// Tokens read at once.
  public var chunk: Int
  /// How keys and values are stored.
  public var cacheType: ElementType
  /// The most tokens of an answer. One whose number is complete ends earlier.
  public var answerTokens: Int

  /// The longest prompt that is tried.
  static let longest = 1 << 30
  /// The most depths, and samples.
  static let most = 1000

  /// An evaluation of prompts of these lengths, with the key at each depth.
  public init(
    lengths: [Int], depths: [Double] = PasskeyTask.depths(10), samples: Int = 1, seed: UInt64 = 0,
    usesChat: Bool = false, chunk: Int = 512, cacheType: ElementType = .f32, answerTokens: Int = 32
  ) {
    self.lengths = lengths
    self.depths = depths
    self.samples = samples
    self.seed = seed
    self.usesChat = usesChat
    self.chunk = chunk
    self.cacheType = cacheType
    self.answerTokens = answerTokens
  }

  /// Runs every policy on every prompt.
  ///
  /// - Parameters:
  ///   - policies: at least one, each a different one.
  ///   - progress: called after each chunk, with tokens as units.
  /// - Throws: ``/LongspanKernels/LongspanError`` naming the parameter that is out of range, before any prompt is read;
  ///   if the longest prompt needs more memory than the machine has; if the model has no chat template that is asked
  ///   for.
  public func run(
    _ model: any LanguageModel, policies: [any KVCachePolicy] = [DensePolicy()],
    progress: ProgressHandler? = nil
  ) throws(LongspanError) -> PasskeyReport {
    let task = PasskeyTask(
      tokenizer: model.tokenizer, chat: usesChat ? try model.chatTemplate.get() : nil)
    try check(task)
    try policies.requireDifferent()
    for policy in policies { _ = try generator(model, policy, lengths.max() ?? 0) }
    try model.warmUp(cacheType: cacheType)

    let total = lengths.reduce(0, +) * depths.count * samples * policies.count
    var read = 0
    var trials: [PasskeyTrial] = []
    for policy in policies {
      for length in lengths {
        for depth in depths {
          for sample in 0..<samples {
            let key = PasskeyTask.key(seed: seed, length: length, depth: depth, sample: sample)
            let prompt = try task.prompt(length: length, depth: depth, key: key)
            let trial = try answer(model, policy, prompt, depth: depth, sample: sample) { completed in
              progress?(ProgressUpdate(stage: "passkey", completed: read + completed, total: total)) ?? true
            }
            trials.append(trial)
            read += length
          }
        }
      }
    }
    return PasskeyReport(trials: trials)
  }

  private func check(_ task: PasskeyTask) throws(LongspanError) {
    func refuse(_ what: String) -> LongspanError { LongspanError(.invalidArgument, "passkey: \(what)") }
    guard !lengths.isEmpty, Set(lengths).count == lengths.count else {
      throw refuse("lengths \(lengths): at least one is needed, and each only once")
    }
    guard !depths.isEmpty, depths.count <= Self.most, Set(depths).count == depths.count else {
      throw refuse("\(depths.count) depths: there must be 1 to \(Self.most), each only once")
    }
    guard samples >= 1, samples <= Self.most else {
      throw refuse("\(samples) samples are out of range, which is 1 to \(Self.most)")
    }
    guard chunk > 0 else { throw refuse("chunk \(chunk) is below 1") }
    guard answerTokens >= 1, answerTokens <= Self.longest else {
      throw refuse("\(answerTokens) tokens of answer are out of range, which is 1 to \(Self.longest)")
    }
    for length in lengths {
      guard length <= Self.longest else { throw refuse("a length of \(length) is above \(Self.longest)") }
      for depth in depths {
        for sample in 0..<samples {
          // keys differ in their tokens
          try task.requireLength(
            length, key: PasskeyTask.key(seed: seed, length: length, depth: depth, sample: sample))
        }
      }
    }
  }

  private func generator(
    _ model: any LanguageModel, _ policy: any KVCachePolicy, _ length: Int
  ) throws(LongspanError) -> Generator {
    let capacity = length + answerTokens
    let generator = try Generator(
      model, sampling: .greedy, seed: 0, policy: policy, cacheType: cacheType, capacity: capacity)
    try generator.requireMemory(forReading: capacity)
    return generator
  }

  private func answer(
    _ model: any LanguageModel, _ policy: any KVCachePolicy, _ prompt: PasskeyPrompt, depth: Double,
    sample: Int,
    progress: @escaping (Int) -> Bool
  ) throws(LongspanError) -> PasskeyTrial {
    let clock = ContinuousClock()
    var generator = try generator(model, policy, prompt.tokens.count)
    let start = clock.now
    try generator.read(prompt.tokens, chunk: chunk) { progress($0.completed) }
    let read = clock.now
    let held = (bytes: generator.sequence.byteCount, slots: generator.sequence.slots)
    var text = ""
    while generator.generated.count < answerTokens, !PasskeyAnswer.isComplete(text),
      let piece = try generator.next()
    {
      text += piece
    }
    let end = clock.now
    return PasskeyTrial(
      policy: policy.description, length: prompt.tokens.count, depth: depth, sample: sample,
      needleDepth: prompt.depth, key: prompt.key, answer: PasskeyAnswer(text, key: prompt.key),
      cacheBytes: held.bytes, cacheSlots: held.slots, readSeconds: (read - start).seconds,
      answerTokens: generator.generated.count, answerSeconds: (end - read).seconds)
  }
}

extension [any KVCachePolicy] {
  /// Throws if there is none or one comes twice: what they gave could not be told apart.
  func requireDifferent() throws(LongspanError) {
    guard !isEmpty else {
      throw LongspanError(.invalidArgument, "no cache policy is given: at least one is needed")
    }
    var seen: Set<String> = []
    for policy in self where !seen.insert(policy.description).inserted {
      throw LongspanError(.invalidArgument, "cache policy '\(policy)' is given twice")
    }
  }
}
