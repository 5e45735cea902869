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
  /// The model that generates.
  public let model: any LanguageModel
  /// What was kept of the text so far. With a drafter it may have read beyond the text, by the draft that is being checked,
  /// until ``read(_:chunk:progress:)`` takes that back or ``next()`` comes to its end.
  public let sequence: any ModelSequence
  /// The tokens generated so far.
  public private(set) var generated: [Int32]
  /// Whether a stop token was drawn.
  public private(set) var isFinished: Bool
  /// Tokens that ``generated`` will have in the end, where that is known: what is drafted does not reach beyond them.
  public var tokenLimit: Int?
  /// How the drafts fared; `nil` without a drafter.
  public internal(set) var draftStatistics: DraftStatistics?
  var drafter: (any Drafter)?
  var run: DraftRun
  var workspace: Workspace
  let stopTokens: Set<Int32>
  /// The token drawn last, which the model has not read yet.
  var pending: Int32?
  private var sampler: Sampler
  private var decoder: TokenStreamDecoder

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
  ///
  /// - Parameter drafter: proposes tokens, which the model checks several in a pass. The text is the same as without.
  /// - Throws: ``/LongspanKernels/LongspanError`` if a sampling option is out of range, or the sequence cannot take
  ///   back what was drafted or does not go with the drafter.
  public init(
    _ model: any LanguageModel, sequence: any ModelSequence, sampling: SamplingOptions, seed: UInt64,
    drafter: (any Drafter)? = nil, ignoringEnd: Bool = false
  ) throws(LongspanError) {
    let sampler = try Sampler(options: sampling, seed: seed)
    if let drafter {
      try sequence.requireTruncation()
      try drafter.check(sequence)
    }
    self.model = model
    self.sequence = sequence
    self.sampler = sampler
    self.drafter = drafter
    draftStatistics = drafter.map { _ in DraftStatistics() }
    run = DraftRun(after: sequence.count)
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
    // the text is what was returned: a draft that was being checked is taken back to where the text ends
    if let accepted = try run.reopen(sequence) { pending = accepted }
    let unread = pending.map { [$0] } ?? []
    // if reading fails, there is nothing to draw from until a later call succeeds
    run = DraftRun(after: sequence.count)
    pending = nil
    let logits = try sequence.readPrompt(
      unread + tokens, chunk: chunk, workspace: &workspace, progress: progress)
    run = DraftRun(after: sequence.count)
    run.logits = logits
    drafter?.append(tokens)
    isFinished = false
  }

  /// Draws the next token and returns the text that is now complete, which may be empty; `nil` once a stop token was
  /// drawn. The token is read by the model at the next call, so that its text does not wait for that.
  public mutating func next() throws(LongspanError) -> String? {
    guard !isFinished else { return nil }
    if let token = pending { try check(token) }
    // kept only once the draft that the token does not go on with was taken back
    var sampler = sampler
    let token = try run.draw(&sampler)
    let isStop = stopTokens.contains(token)
    let isAccepted = !isStop && run.drafted(token)
    if !isAccepted { try run.close(sequence) }
    self.sampler = sampler
    if run.isCheck { draftStatistics?.addToken(acceptedAt: isAccepted ? run.row : nil) }
    guard !isStop else {
      isFinished = true
      return nil
    }
    generated.append(token)
    drafter?.append([token])
    if isAccepted { run.accept() } else { pending = token }
    return try decoder.append(token)
  }

  /// Ends the text and returns what was held back of a character that was never completed.
  public mutating func finish() -> String {
    isFinished = true
    return decoder.finish()
  }
}
