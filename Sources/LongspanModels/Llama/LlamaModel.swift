import Longspan
import LongspanKernels

/// A Llama-type language model: RMSNorm, rotary positions, grouped-query attention and a gated feed-forward layer,
/// with a tied or untied embedding (Touvron et al. 2023; Ainslie et al. 2023).
///
/// Immutable once loaded: any number of sequences can run on it, each with a cache of its own.
///
/// ```swift
/// let model = try LlamaModel(path: "model.gguf")
/// var cache = try model.makeCache()
/// var workspace = Workspace()
/// let logits = try model.prefill([1, 2, 3], into: &cache, workspace: &workspace)
/// ```
public final class LlamaModel: Sendable {
  /// The shape of the model.
  public let configuration: LlamaConfiguration
  /// What turns text into tokens and back.
  public let tokenizer: BPETokenizer
  /// The chat template, or the error that says why there is none.
  public let chatTemplate: Result<ChatTemplate, LongspanError>
  /// The name in the file's metadata, or the file's.
  public let name: String
  /// Bytes of the model file.
  public let fileByteCount: Int
  public let context: KernelContext
  let weights: LlamaWeights
  let inverseFrequencies: [Float]

  /// Opens and loads a GGUF file of architecture `llama`.
  ///
  /// - Parameters:
  ///   - storage: how the weights of matrix products are held.
  ///   - context: what kernels run with; `nil` makes one with all cores.
  ///   - progress: sees the loading, which takes a second or more for large models.
  /// - Throws: ``/LongspanKernels/LongspanError`` naming the file and what is wrong with it.
  public convenience init(
    path: String, storage: WeightStorage = .native, context: KernelContext? = nil,
    progress: ProgressHandler? = nil
  ) throws(LongspanError) {
    let context = if let context { context } else { try KernelContext() }
    try self.init(
      SharedFile(try GGUFFile(path: path)), storage: storage, context: context, progress: progress)
  }

  init(
    _ shared: SharedFile, storage: WeightStorage, context: KernelContext, progress: ProgressHandler?
  ) throws(LongspanError) {
    configuration = try LlamaConfiguration(shared.file)
    tokenizer = try BPETokenizer(shared.file)
    do throws(LongspanError) {
      chatTemplate = .success(try ChatTemplate(shared.file))
    } catch {
      chatTemplate = .failure(error)
    }
    name = try shared.file.string("general.name", default: shared.file.name)
    fileByteCount = shared.file.byteCount
    self.context = context
    weights = try LlamaWeights(shared, configuration, storage: storage, on: context, progress: progress)
    guard weights.embedding.rows >= tokenizer.tokenCount else {
      throw LongspanError(
        .invalidFile,
        "\(shared.file.name): \(tokenizer.tokenCount) tokens but only \(weights.embedding.rows) embeddings")
    }
    let frequencies = configuration.inverseFrequencies
    inverseFrequencies =
      weights.ropeFactors.isEmpty ? frequencies : zip(frequencies, weights.ropeFactors).map { $0 / $1 }
  }

  /// Tokens with an embedding and a logit.
  public var vocabularySize: Int { weights.embedding.rows }

  /// Number of weights.
  public var parameterCount: Int {
    let products = weights.matrices.reduce(0) { $0 + $1.rows * $1.columns }
    let norms = weights.layers.reduce(weights.outputNorm.count) {
      $0 + $1.attentionNorm.count + $1.feedForwardNorm.count
    }
    return products + norms + (weights.isTied ? 0 : weights.embedding.rows * weights.embedding.columns)
  }

  /// Bytes of the weights of products, in memory of their own beside the file's mapping.
  public var weightByteCount: Int { weights.matrices.reduce(0) { $0 + $1.ownedByteCount } }

  /// How keys and queries are rotated.
  public var rotary: RotaryEmbedding {
    RotaryEmbedding(layout: .interleaved, inverseFrequencies: inverseFrequencies)
  }

  /// An empty cache of this model's shape.
  ///
  /// - Parameters:
  ///   - policy: decides what is kept.
  ///   - capacity: tokens to reserve address space for.
  public func makeCache(
    policy: any KVCachePolicy = DensePolicy(), elementType: ElementType = .f32, capacity: Int = 8192
  ) throws(LongspanError) -> KVCache {
    try makeCache(
      of: 0..<configuration.layers, policy: policy, elementType: elementType, capacity: capacity)
  }
}
