import Longspan
import LongspanKernels

/// How well a model predicts a text.
public struct PerplexityReport: Sendable, Equatable {
  /// exp of the mean negative log-likelihood.
  public let perplexity: Double
  /// Mean negative log-likelihood in nats.
  public let meanNLL: Double
  /// Mean entropy of the predicted distributions in nats.
  public let meanEntropy: Double
  /// Tokens predicted.
  public let scoredTokens: Int
  /// Perplexity by position in the window, in equal buckets; the first bucket has one token fewer a window.
  public let curve: [Bucket]
  /// Bytes of what was kept at the end of the first window: keys, values, positions where tokens were given up, or states.
  public let cacheBytes: Int
  /// Slots of the layer with the most, then; 0 where a state of constant size is kept.
  public let cacheSlots: Int

  /// The perplexity of a range of positions in the windows.
  public struct Bucket: Sendable, Equatable {
    /// Positions first ..< end of a window.
    public let first: Int
    /// The position behind the last.
    public let end: Int
    /// Over the tokens at these positions of all windows.
    public let perplexity: Double
  }
}

/// Scores a text in windows that do not overlap, each starting at position 0 with nothing kept; a window's first
/// token is not scored.
public struct PerplexityEvaluation: Sendable {
  /// Tokens of a window.
  public var contextLength: Int
  /// Tokens read at once.
  public var chunk: Int
  /// How keys and values are stored.
  public var cacheType: ElementType
  /// What the cache keeps. Policies that compress do so while a window is read.
  public var policy: any KVCachePolicy
  /// Buckets of ``PerplexityReport/curve``.
  public var buckets: Int
  /// What happens to time steps, in models that have them. It sees a window as a prompt of known length.
  public var timeSteps: any TimeStepPolicy
  /// The schedule of direct multi-token decoding, `nil` for ordinary decoding. A window has no prompt: every token is read as
  /// if it had been generated, the first as a head.
  public var decoding: MultiTokenDecoding?

  /// Rows of logits made at once: 128 rows of a vocabulary of 49,152 take 24 MiB.
  private static let logitRows = 128

  /// An evaluation over windows of `contextLength` tokens.
  public init(
    contextLength: Int, chunk: Int = 512, cacheType: ElementType = .f32,
    policy: any KVCachePolicy = DensePolicy(), buckets: Int = 16,
    timeSteps: any TimeStepPolicy = UnfilteredTimeSteps(), decoding: MultiTokenDecoding? = nil
  ) {
    self.decoding = decoding
    self.contextLength = contextLength
    self.chunk = chunk
    self.cacheType = cacheType
    self.policy = policy
    self.buckets = buckets
    self.timeSteps = timeSteps
  }

  /// Scores tokens. A last window that is shorter than the others is scored too, if it has two tokens or more.
  ///
  /// - Parameters:
  ///   - progress: called after each chunk, with tokens as units.
  /// - Throws: ``/LongspanKernels/LongspanError`` if there are fewer than two tokens, or the context is below 2 or
  ///   needs more memory than the machine has.
  public func run(
    _ model: any LanguageModel, tokens: [Int32], progress: ProgressHandler? = nil
  ) throws(LongspanError) -> PerplexityReport {
    guard contextLength >= 2 else {
      throw LongspanError(
        .invalidArgument, "context: \(contextLength) is below 2, so no token could be predicted")
    }
    guard chunk > 0, buckets > 0 else {
      throw LongspanError(.invalidArgument, "chunk \(chunk) and buckets \(buckets): each must be at least 1")
    }
    guard tokens.count >= 2 else {
      throw LongspanError(.invalidText, "\(tokens.count) tokens are too few to predict one from another")
    }
    let window = min(contextLength, tokens.count)
    let sequence = try model.makeSequence(
      SequenceOptions(
        policy: policy, cacheType: cacheType, capacity: window, timeSteps: timeSteps,
        decoding: decoding))
    try sequence.requireMemory(forReading: contextLength)
    var held = (bytes: 0, slots: 0)
    var workspace = Workspace()
    var sums = PositionSums(length: window, buckets: min(buckets, window))
    var first = 0
    while first + 1 < tokens.count {
      let end = min(tokens.count, first + window)
      sequence.begin(expecting: end - first)
      var position = first
      while position < end {
        let next = position + sequence.stepLength(limit: min(chunk, end - position))
        let hidden = try sequence.read(Array(tokens[position..<next]), workspace: &workspace)
        guard hidden.count == (next - position) * model.hiddenSize else {
          throw LongspanError(
            .unsupported, "a policy drops tokens of the text, whose predictions then cannot be scored")
        }
        let scored = min(next, end - 1) - position
        let targets = Array(tokens[position + 1..<position + 1 + scored])
        try score(model, hidden, targets: targets, at: position - first, &sums, &workspace)
        position = next
        try report(ProgressUpdate(stage: "scoring", completed: position, total: tokens.count), to: progress)
      }
      if first == 0 {
        held = (sequence.byteCount, sequence.slots)
      }
      first = end
    }
    return sums.report(cacheBytes: held.bytes, cacheSlots: held.slots)
  }

  /// Adds the losses of `targets`, which follow the hidden states' tokens; `position` is the first one's in the window.
  private func score(
    _ model: any LanguageModel, _ hidden: borrowing AlignedBuffer<Float>, targets: [Int32], at position: Int,
    _ sums: inout PositionSums, _ workspace: inout Workspace
  ) throws(LongspanError) {
    var row = 0
    while row < targets.count {
      let end = min(targets.count, row + Self.logitRows)
      let logits = try model.logits(of: hidden, rows: row..<end, workspace: &workspace)
      var nll = try AlignedBuffer<Float>(count: end - row)
      var entropy = try AlignedBuffer<Float>(count: end - row)
      var nllSpan = nll.mutableSpan
      var entropySpan = entropy.mutableSpan
      try model.context.logSoftmaxGather(
        logits: TensorView(logits.span, tokens: end - row, columns: model.vocabularySize),
        targets: targets.span.extracting(row..<end), nll: &nllSpan, entropy: &entropySpan)
      for index in 0..<end - row {
        // the target of the token at `position` stands one further
        sums.add(Double(nll.span[index]), Double(entropy.span[index]), at: position + row + index + 1)
      }
      row = end
    }
  }
}

/// Sums of losses by position in the window.
private struct PositionSums {
  private let length: Int
  private var nll: [Double]
  private var counts: [Int]
  private var entropy = 0.0

  init(length: Int, buckets: Int) {
    self.length = length
    nll = Array(repeating: 0, count: buckets)
    counts = Array(repeating: 0, count: buckets)
  }

  mutating func add(_ loss: Double, _ spread: Double, at position: Int) {
    let bucket = position * nll.count / length
    nll[bucket] += loss
    counts[bucket] += 1
    entropy += spread
  }

  func report(cacheBytes: Int, cacheSlots: Int) -> PerplexityReport {
    let scored = counts.reduce(0, +)
    let mean = nll.reduce(0, +) / Double(scored)
    let curve = nll.indices.filter { counts[$0] > 0 }.map { bucket in
      PerplexityReport.Bucket(
        first: (bucket * length + nll.count - 1) / nll.count,
        end: ((bucket + 1) * length + nll.count - 1) / nll.count,
        perplexity: exponential(nll[bucket] / Double(counts[bucket])))
    }
    return PerplexityReport(
      perplexity: exponential(mean), meanNLL: mean, meanEntropy: entropy / Double(scored),
      scoredTokens: scored,
      curve: curve, cacheBytes: cacheBytes, cacheSlots: cacheSlots)
  }
}
