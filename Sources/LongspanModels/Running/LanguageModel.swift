import Longspan
import LongspanKernels

/// A causal language model that runs over the kernels, whatever its architecture.
///
/// Immutable once loaded: any number of sequences can run on it, each on one thread at a time.
///
/// ```swift
/// let model = try LanguageModels.load(path: "model.gguf")
/// let sequence = try model.makeSequence()
/// var workspace = Workspace()
/// let logits = try sequence.readPrompt([1, 2, 3], workspace: &workspace)
/// ```
public protocol LanguageModel: AnyObject, Sendable {
  /// The architecture's name, as GGUF files have it.
  var architecture: String { get }
  /// The name in the file's metadata, or the file's.
  var name: String { get }
  /// What turns text into tokens and back.
  var tokenizer: BPETokenizer { get }
  /// The chat template, or the error that says why there is none.
  var chatTemplate: Result<ChatTemplate, LongspanError> { get }
  /// What kernels run with.
  var context: KernelContext { get }
  /// Layers of the model.
  var layerCount: Int { get }
  /// Width of the residual stream and of hidden states.
  var hiddenSize: Int { get }
  /// Tokens with an embedding and a logit.
  var vocabularySize: Int { get }
  /// Tokens the model was trained on at once, as its file says.
  var trainedContext: Int { get }
  /// Number of weights.
  var parameterCount: Int { get }
  /// Bytes of the model file.
  var fileByteCount: Int { get }
  /// Bytes of the weights of products, in memory of their own beside the file's mapping.
  var weightByteCount: Int { get }

  /// What is kept of a text that is about to be read.
  ///
  /// - Throws: ``/LongspanKernels/LongspanError`` if an option does not go with the architecture, or there is no memory.
  func makeSequence(_ options: SequenceOptions) throws(LongspanError) -> any ModelSequence

  /// What turns hidden states into logits, `[vocabularySize, hiddenSize]`.
  var outputWeights: LinearWeights { get }
}

/// How a sequence keeps what was read. Models refuse what does not go with their architecture.
public struct SequenceOptions: Sendable {
  /// Decides which keys and values are kept, in models that have them.
  public var policy: any KVCachePolicy
  /// How keys and values are stored.
  public var cacheType: ElementType
  /// Tokens to reserve address space for.
  public var capacity: Int
  /// What happens to time steps, in models that have them.
  public var timeSteps: any TimeStepPolicy
  /// The schedule of direct multi-token decoding, in models of layers that it can group; `nil` for ordinary decoding.
  public var decoding: MultiTokenDecoding?
  /// How the sequence drafts for a ``SelfSpeculativeDrafter``, if it is to.
  public var drafting: SelfSpeculativeDrafting?

  /// Options; without arguments everything is kept, in f32, and decoded one token at a time.
  public init(
    policy: any KVCachePolicy = DensePolicy(), cacheType: ElementType = .f32, capacity: Int = 8192,
    timeSteps: any TimeStepPolicy = UnfilteredTimeSteps(), decoding: MultiTokenDecoding? = nil,
    drafting: SelfSpeculativeDrafting? = nil
  ) {
    self.decoding = decoding
    self.drafting = drafting
    self.policy = policy
    self.timeSteps = timeSteps
    self.cacheType = cacheType
    self.capacity = capacity
  }
}

extension LanguageModel {
  /// Logits of rows of hidden states, `[rows.count, vocabularySize]`.
  ///
  /// - Parameter hidden: `[T, hiddenSize]`, as ``ModelSequence/read(_:workspace:)`` returns them.
  public func logits(
    of hidden: borrowing AlignedBuffer<Float>, rows: Range<Int>, workspace: inout Workspace
  ) throws(LongspanError) -> AlignedBuffer<Float> {
    let width = hiddenSize
    guard rows.lowerBound >= 0, rows.upperBound <= hidden.count / width else {
      throw LongspanError(.badIndex, "rows \(rows) are outside \(hidden.count / width) hidden states")
    }
    var logits = try AlignedBuffer<Float>(count: rows.count * vocabularySize)
    var output = logits.mutableSpan
    KernelProfile.setTag(layerCount)
    try context.linear(
      TensorView(
        hidden.span.extracting(rows.lowerBound * width..<rows.upperBound * width), tokens: rows.count,
        columns: width),
      outputWeights, workspace: &workspace, into: &output)
    return logits
  }

  /// An empty text with default options.
  public func makeSequence() throws(LongspanError) -> any ModelSequence {
    try makeSequence(SequenceOptions())
  }

  /// A plain prompt's tokens, after the model's beginning-of-text token where it wants one.
  public func promptTokens(_ text: String) -> [Int32] {
    let tokens = tokenizer.encode(text, parsingSpecialTokens: false)
    guard tokenizer.addsBeginningOfText, let beginning = tokenizer.beginningOfText else { return tokens }
    return [beginning] + tokens
  }

  /// Reads one token into a sequence of its own, so that the model file's pages are in memory before something is timed.
  func warmUp(cacheType: ElementType) throws(LongspanError) {
    let sequence = try makeSequence(SequenceOptions(cacheType: cacheType, capacity: 1))
    var workspace = Workspace()
    _ = try sequence.readPrompt([0], workspace: &workspace)
  }
}

/// A text that a model is reading: what it has kept of the tokens so far. Used by one thread at a time.
public protocol ModelSequence: AnyObject {
  /// Tokens read.
  var count: Int { get }
  /// Bytes of what is kept of them.
  var byteCount: Int { get }
  /// Slots of the layer that has the most; 0 where a state of constant size is kept instead.
  var slots: Int { get }
  /// What decides what is kept: the cache policy, as `--kv` takes it, or "recurrent".
  var policyName: String { get }

  /// Forgets everything, to read another text.
  ///
  /// - Parameter tokens: the text's length, for methods that depend on it; `nil` if it is not known.
  func begin(expecting tokens: Int?)

  /// The most tokens, at most `limit`, that the next ``read(_:workspace:)`` may have.
  func stepLength(limit: Int) -> Int

  /// Throws if what is kept of `tokens` more tokens does not fit in memory.
  func requireMemory(forReading tokens: Int) throws(LongspanError)

  /// Forgets all but the first `tokens` tokens of the text.
  ///
  /// - Throws: ``/LongspanKernels/LongspanError``; with ``/LongspanKernels/LongspanError/Code/unsupported``, naming
  ///   what stands against it, if the sequence cannot go back that far.
  func truncate(to tokens: Int) throws(LongspanError)

  /// Throws, naming what stands against it, unless ``truncate(to:)`` can take back whatever will be read.
  func requireTruncation() throws(LongspanError)

  /// Reads tokens after those read before and returns their hidden states after the final norm, `[T, hiddenSize]`; fewer
  /// rows, the last one always among them, where a time step policy drops tokens.
  ///
  /// In a ``/LongspanKernels/KernelProfile``, calls have the tag of their layer: -1 for the embedding,
  /// ``LanguageModel/layerCount`` for the final norm and the logits.
  ///
  /// - Parameter tokens: at least one.
  /// - Throws: ``/LongspanKernels/LongspanError``; the sequence is as it was then, unless a cache policy had begun to
  ///   give up slots, which it says.
  func read(_ tokens: [Int32], workspace: inout Workspace) throws(LongspanError) -> AlignedBuffer<Float>

  /// Reads a prompt in chunks and returns the logits after its last token.
  ///
  /// - Parameters:
  ///   - tokens: at least one.
  ///   - chunk: tokens read at once: memory for activations grows with it.
  ///   - progress: called after each chunk.
  /// - Throws: ``/LongspanKernels/LongspanError``; the chunks that were read stay.
  func readPrompt(
    _ tokens: [Int32], chunk: Int, workspace: inout Workspace, progress: ProgressHandler?
  ) throws(LongspanError) -> AlignedBuffer<Float>
}

extension ModelSequence {
  /// Reads a prompt.
  public func readPrompt(
    _ tokens: [Int32], chunk: Int = 512, workspace: inout Workspace
  ) throws(LongspanError) -> AlignedBuffer<Float> {
    try readPrompt(tokens, chunk: chunk, workspace: &workspace, progress: nil)
  }
}
