import Longspan
import LongspanKernels

/// Generates text from a prompt, a token at a time.
///
/// ```swift
/// var generator = try Generator(model, sampling: .greedy, seed: 1)
/// try generator.read(model.tokenizer.encode("Once upon a time", parsingSpecialTokens: false))
/// while let text = try generator.next() { print(text, terminator: "") }
/// ```
public struct Generator: ~Copyable {
  public let model: any LanguageModel
  /// What was kept of the text so far.
  public let sequence: any ModelSequence
  /// The tokens generated so far.
  public private(set) var generated: [Int32]
  /// Whether a stop token was drawn.
  public private(set) var isFinished: Bool
  private var sampler: Sampler
  private var decoder: TokenStreamDecoder
  private var workspace: Workspace
  private var logits: AlignedBuffer<Float>
  /// The token drawn last, which the model has not read yet.
  private var pending: Int32?
  private let stopTokens: Set<Int32>

  /// Makes a generator that has read nothing.
  ///
  /// - Parameters:
  ///   - policy: decides what a cache keeps.
  ///   - cacheType: how keys and values are stored.
  ///   - capacity: tokens to reserve address space for.
  ///   - ignoringEnd: goes on after the model's end-of-text and end-of-turn tokens.
  public init(
    _ model: any LanguageModel, sampling: SamplingOptions, seed: UInt64,
    policy: any KVCachePolicy = DensePolicy(), cacheType: ElementType = .f32, capacity: Int = 8192,
    ignoringEnd: Bool = false
  ) throws(LongspanError) {
    let options = SequenceOptions(policy: policy, cacheType: cacheType, capacity: capacity)
    try self.init(
      model, sequence: try model.makeSequence(options), sampling: sampling, seed: seed,
      ignoringEnd: ignoringEnd)
  }

  /// Makes a generator that goes on with a sequence of the model.
  public init(
    _ model: any LanguageModel, sequence: any ModelSequence, sampling: SamplingOptions, seed: UInt64,
    ignoringEnd: Bool = false
  ) throws(LongspanError) {
    let sampler = try Sampler(options: sampling, seed: seed)
    self.model = model
    self.sequence = sequence
    self.sampler = sampler
    logits = AlignedBuffer()
    generated = []
    isFinished = false
    pending = nil
    workspace = Workspace()
    decoder = TokenStreamDecoder(model.tokenizer, skippingControlTokens: true)
    stopTokens =
      ignoringEnd ? [] : Set([model.tokenizer.endOfText, model.tokenizer.endOfTurn].compactMap { $0 })
  }

  /// Refuses a context of `tokens` more tokens that does not fit in memory, before anything is read.
  public func requireMemory(forReading tokens: Int) throws(LongspanError) {
    try sequence.requireMemory(forReading: tokens)
  }

  /// Reads a prompt, or more of one, in chunks.
  public mutating func read(
    _ tokens: [Int32], chunk: Int = 512, progress: ProgressHandler? = nil
  ) throws(LongspanError) {
    let unread = pending.map { [$0] } ?? []
    // if reading fails, there is nothing to draw from until a later call succeeds
    logits = AlignedBuffer()
    pending = nil
    logits = try sequence.readPrompt(
      unread + tokens, chunk: chunk, workspace: &workspace, progress: progress)
    isFinished = false
  }

  /// Draws the next token and returns the text that is now complete, which may be empty; `nil` once a stop token was
  /// drawn. The token is read by the model at the next call, so that its text does not wait for that.
  public mutating func next() throws(LongspanError) -> String? {
    guard !isFinished else { return nil }
    if let token = pending {
      let hidden = try sequence.read([token], workspace: &workspace)
      logits = try model.logits(of: hidden, rows: 0..<1, workspace: &workspace)
      pending = nil
    }
    guard logits.count > 0 else {
      throw LongspanError(.invalidText, "the prompt is empty: nothing was read yet")
    }
    // a copy, because a span of the logits borrows all of self
    var sampler = sampler
    let token = try sampler.sample(logits.span)
    self.sampler = sampler
    if stopTokens.contains(token) {
      isFinished = true
      return nil
    }
    generated.append(token)
    pending = token
    return try decoder.append(token)
  }

  /// Ends the text and returns what was held back of a character that was never completed.
  public mutating func finish() -> String {
    isFinished = true
    return decoder.finish()
  }
}
