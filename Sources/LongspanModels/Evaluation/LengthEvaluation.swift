import Glibc
import Longspan
import LongspanKernels

/// What one time step policy gave at one length of text.
public struct LengthMeasurement: Sendable, Equatable {
  /// The policy, as `--filter` takes it.
  public let policy: String
  /// Tokens of a text.
  public let length: Int
  /// exp of the mean negative log-likelihood of the last tokens of each window.
  public let perplexity: Double
  /// Share of facts that were recalled, or `nil` for a model that was not trained to.
  public let recall: Double?
  /// Tokens of prompts over the seconds that reading them took.
  public let readTokensPerSecond: Double
}

/// How well a model predicts and recalls at several lengths of text, under several time step policies.
///
/// **Perplexity**: windows of the text at even distances are read as prompts but for their last tokens, which then are read as
/// a continuation and scored. **Recall**: prompts of ``RecallTask``, whose questions are read as a continuation; an answer
/// is right if it has the highest logit of all tokens. A policy so sees a prompt of which it knows the length, and what
/// follows as it would see generated tokens.
public struct LengthEvaluation: Sendable {
  /// Tokens of a window, and of a recall prompt with its questions.
  public var lengths: [Int]
  /// Tokens read at once.
  public var chunk: Int
  /// Windows of each length.
  public var windows: Int
  /// Tokens scored at the end of each window.
  public var scored: Int
  /// Recall prompts of each length and depth.
  public var prompts: Int
  /// Facts of a recall prompt.
  public var facts: Int
  /// Where the facts stand, 0 to 1.
  public var depths: [Double]
  /// Of the recall prompts: the same seed makes the same ones.
  public var seed: UInt64

  /// An evaluation at these lengths.
  public init(
    lengths: [Int], chunk: Int = 512, windows: Int = 8, scored: Int = 128, prompts: Int = 8, facts: Int = 8,
    depths: [Double] = [0], seed: UInt64 = 0
  ) {
    self.lengths = lengths
    self.chunk = chunk
    self.windows = windows
    self.scored = scored
    self.prompts = prompts
    self.facts = facts
    self.depths = depths
    self.seed = seed
  }

  /// Runs every policy at every length; all see the same windows and prompts.
  ///
  /// - Parameters:
  ///   - tokens: the text.
  ///   - progress: called after each window and prompt, with tokens as units.
  /// - Returns: a measurement for each policy and length, policies first.
  /// - Throws: ``/LongspanKernels/LongspanError`` if a length does not leave room for what is scored, or the text is
  ///   shorter.
  public func run(
    _ model: any LanguageModel, tokens: [Int32], policies: [any TimeStepPolicy],
    progress: ProgressHandler? = nil
  ) throws(LongspanError) -> [LengthMeasurement] {
    try check(tokens)
    let task = try? RecallTask(model.tokenizer)
    var reader = Reader(
      chunk: chunk, progress: progress,
      total: policies.count
        * lengths.reduce(0) { $0 + $1 * (windows + (task == nil ? 0 : prompts * depths.count)) })
    var results: [LengthMeasurement] = []
    for policy in policies {
      let sequence = try model.makeSequence(
        SequenceOptions(capacity: lengths.max() ?? 1, timeSteps: policy))
      for length in lengths {
        reader.restartClock()
        let perplexity = try perplexity(model, sequence, tokens, length, &reader)
        let recall =
          if let task { try recall(model, sequence, task, tokens, length, &reader) } else { Double?.none }
        results.append(
          LengthMeasurement(
            policy: policy.description, length: length, perplexity: perplexity, recall: recall,
            readTokensPerSecond: reader.tokensPerSecond))
      }
    }
    return results
  }

  private func check(_ tokens: [Int32]) throws(LongspanError) {
    guard windows >= 1, scored >= 1, prompts >= 1, chunk >= 1, !lengths.isEmpty, !depths.isEmpty else {
      throw LongspanError(
        .invalidArgument, "windows, scored tokens, prompts, lengths and depths: each must be at least one")
    }
    for length in lengths {
      guard length >= scored + 2 else {
        throw LongspanError(
          .invalidArgument, "a window of \(length) tokens has no prompt before the \(scored) that are scored")
      }
      guard length <= tokens.count else {
        throw LongspanError(
          .invalidText, "the text has \(tokens.count) tokens, fewer than a window of \(length)")
      }
    }
  }

  private func perplexity(
    _ model: any LanguageModel, _ sequence: any ModelSequence, _ tokens: [Int32], _ length: Int,
    _ reader: inout Reader
  ) throws(LongspanError) -> Double {
    var sum = 0.0
    for window in 0..<windows {
      let start = windows == 1 ? 0 : (tokens.count - length) * window / (windows - 1)
      // the last token is only predicted
      let prompt = length - 1 - scored
      try reader.readPrompt(Array(tokens[start..<start + prompt]), sequence)
      let hidden = try reader.read(Array(tokens[start + prompt..<start + length - 1]), sequence)
      let logits = try model.logits(of: hidden, rows: 0..<scored, workspace: &reader.workspace)
      var nll = try AlignedBuffer<Float>(count: scored)
      var entropy = try AlignedBuffer<Float>(count: scored)
      var nllSpan = nll.mutableSpan
      var entropySpan = entropy.mutableSpan
      try model.context.logSoftmaxGather(
        logits: TensorView(logits.span, tokens: scored, columns: model.vocabularySize),
        targets: tokens.span.extracting(start + prompt + 1..<start + length), nll: &nllSpan,
        entropy: &entropySpan)
      for index in 0..<scored { sum += Double(nll.span[index]) }
    }
    return exp(sum / Double(windows * scored))
  }

  private func recall(
    _ model: any LanguageModel, _ sequence: any ModelSequence, _ task: RecallTask, _ tokens: [Int32],
    _ length: Int, _ reader: inout Reader
  ) throws(LongspanError) -> Double {
    var generator = Xoshiro256StarStar(seed: seed &+ UInt64(length))
    var right = 0
    for depth in depths {
      for _ in 0..<prompts {
        let prompt = try task.prompt(
          length: length, facts: facts, depth: depth, text: tokens, using: &generator)
        try reader.readPrompt(prompt.prompt, sequence)
        let hidden = try reader.read(prompt.questions, sequence)
        let logits = try model.logits(
          of: hidden, rows: 0..<prompt.questions.count, workspace: &reader.workspace)
        let size = model.vocabularySize
        for (place, answer) in zip(prompt.places, prompt.answers) {
          let row = logits.span.extracting(place * size..<(place + 1) * size)
          let best = (0..<size).max { row[$0] < row[$1] }
          if best == Int(answer) { right += 1 }
        }
      }
    }
    return Double(right) / Double(depths.count * prompts * facts)
  }

  /// Reads texts and keeps the time.
  private struct Reader: ~Copyable {
    let chunk: Int
    let progress: ProgressHandler?
    let total: Int
    var workspace = Workspace()
    private var done = 0
    private var tokens = 0
    private var seconds = 0.0

    init(chunk: Int, progress: ProgressHandler?, total: Int) {
      self.chunk = chunk
      self.progress = progress
      self.total = total
    }

    var tokensPerSecond: Double { Double(tokens) / max(seconds, 1e-9) }

    mutating func restartClock() {
      tokens = 0
      seconds = 0
    }

    mutating func readPrompt(_ prompt: [Int32], _ sequence: any ModelSequence) throws(LongspanError) {
      sequence.begin(expecting: prompt.count)
      let clock = ContinuousClock()
      let start = clock.now
      _ = try sequence.readPrompt(prompt, chunk: chunk, workspace: &workspace, progress: nil)
      seconds += (clock.now - start).seconds
      tokens += prompt.count
      done += prompt.count
    }

    /// Reads what follows a prompt, and reports.
    mutating func read(
      _ continuation: [Int32], _ sequence: any ModelSequence
    ) throws(LongspanError) -> AlignedBuffer<Float> {
      let hidden = try sequence.read(continuation, workspace: &workspace)
      done += continuation.count
      try report(ProgressUpdate(stage: "reading", completed: min(done, total), total: total), to: progress)
      return hidden
    }
  }
}
