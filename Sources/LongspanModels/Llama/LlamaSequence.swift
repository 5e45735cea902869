import Longspan
import LongspanKernels

/// A text that a Llama-type model is reading, with its keys and values.
public final class LlamaSequence: ModelSequence {
  /// The model that reads.
  public let model: LlamaModel
  /// The keys and values of what was read.
  public private(set) var cache: KVCache

  init(_ model: LlamaModel, _ cache: consuming KVCache) {
    self.model = model
    self.cache = cache
  }

  public var count: Int { cache.count }
  public var byteCount: Int { cache.byteCount }
  public var slots: Int { cache.mostSlots }
  public var policyName: String { cache.policy.description }

  public func begin(expecting tokens: Int?) { cache.removeAll() }

  public func stepLength(limit: Int) -> Int { cache.stepLength(limit: limit) }

  public func requireMemory(forReading tokens: Int) throws(LongspanError) {
    try cache.requireMemory(forReading: tokens)
  }

  public func truncate(to tokens: Int) throws(LongspanError) { try cache.truncate(to: tokens) }

  public func requireTruncation() throws(LongspanError) { try cache.policy.requireTruncation() }

  public func read(
    _ tokens: [Int32], workspace: inout Workspace
  ) throws(LongspanError) -> AlignedBuffer<Float> {
    try model.hiddenStates(of: tokens, cache: &cache, workspace: &workspace)
  }

  public func readPrompt(
    _ tokens: [Int32], chunk: Int, workspace: inout Workspace, progress: ProgressHandler?
  ) throws(LongspanError) -> AlignedBuffer<Float> {
    try model.prefill(tokens, into: &cache, chunk: chunk, workspace: &workspace, progress: progress)
  }

  /// Keeps what was read, to ``restore(_:)`` it later: a prefix that several texts share is read once.
  public func snapshot() throws(LongspanError) -> KVCache.Snapshot { try cache.snapshot() }

  /// Brings back a snapshot of this sequence or another of the model, which can be used again.
  ///
  /// - Throws: ``/LongspanKernels/LongspanError`` if it is of another cache policy or cache type.
  public func restore(_ snapshot: KVCache.Snapshot) throws(LongspanError) { try cache.restore(snapshot) }
}

extension LlamaModel: LanguageModel {
  public var architecture: String { "llama" }
  /// Transformer blocks.
  public var layerCount: Int { configuration.layers }
  public var hiddenSize: Int { configuration.hidden }
  public var trainedContext: Int { configuration.trainedContext }
  public var outputWeights: LinearWeights { weights.output }

  public func makeSequence(_ options: SequenceOptions) throws(LongspanError) -> any ModelSequence {
    guard options.timeSteps is UnfilteredTimeSteps else {
      throw LongspanError(
        .unsupported,
        "time step policy '\(options.timeSteps)' is for models with state-space layers; llama has none")
    }
    if let decoding = options.decoding, let drafting = options.drafting {
      throw LongspanError(
        .invalidArgument,
        "\(decoding) and \(drafting) do not go together: one changes the text, the other keeps it")
    }
    if let decoding = options.decoding { return try LlamaMultiTokenSequence(self, decoding, options) }
    if let drafting = options.drafting { return try LlamaSelfSpeculativeSequence(self, drafting, options) }
    return LlamaSequence(
      self,
      try makeCache(
        policy: options.policy, elementType: options.cacheType,
        capacity: options.policy.slots(afterReading: options.capacity, layer: 0)))
  }
}

extension KVCachePolicy {
  /// Throws, naming the policy, unless a cache with it can take back whatever it has read.
  func requireTruncation() throws(LongspanError) {
    guard self is DensePolicy else {
      throw LongspanError(
        .unsupported,
        "drafting takes back what the model refuses, which a cache with policy \(self) cannot do once it was compressed: "
          + "use dense")
    }
  }
}
