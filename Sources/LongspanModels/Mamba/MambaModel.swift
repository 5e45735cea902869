import Longspan
import LongspanKernels

/// A Mamba (Gu and Dao 2023) or Mamba-2 (Dao and Gu 2024) language model: layers of RMSNorm, a causal convolution and a
/// state-space scan, with a tied or untied embedding.
///
/// Immutable once loaded: any number of sequences can run on it, each with a state of its own.
///
/// ```swift
/// let model = try MambaModel(path: "mamba.gguf")
/// let sequence = try model.makeSequence()
/// var workspace = Workspace()
/// let logits = try sequence.readPrompt([1, 2, 3], workspace: &workspace)
/// ```
public final class MambaModel: StateSpaceModel {
  /// The shape of the model.
  public let configuration: MambaConfiguration
  /// What turns text into tokens and back.
  public let tokenizer: BPETokenizer
  public let chatTemplate: Result<ChatTemplate, LongspanError>
  public let name: String
  public let fileByteCount: Int
  public let context: KernelContext
  let weights: MambaWeights

  public var architecture: String { configuration.architecture }
  /// Blocks of a norm and a mixer.
  public var layerCount: Int { configuration.layers }
  public var hiddenSize: Int { configuration.hidden }
  public var trainedContext: Int { configuration.trainedContext }
  public var vocabularySize: Int { weights.embedding.rows }

  /// Opens and loads a GGUF file of architecture `mamba` or `mamba2`, or a folder with `config.json`,
  /// `tokenizer.json` and `model.safetensors` as transformers saves it.
  ///
  /// - Parameters:
  ///   - storage: how the weights of matrix products are held.
  ///   - context: what kernels run with; `nil` makes one with all cores.
  ///   - progress: sees the loading.
  /// - Throws: ``/LongspanKernels/LongspanError`` naming the file and what is wrong with it.
  public convenience init(
    path: String, storage: WeightStorage = .native, context: KernelContext? = nil,
    progress: ProgressHandler? = nil
  ) throws(LongspanError) {
    let context = if let context { context } else { try KernelContext() }
    if HuggingFaceFolder.isFolder(path) {
      try self.init(HuggingFaceFolder(path), storage: storage, context: context, progress: progress)
    } else {
      try self.init(
        SharedFile(try GGUFFile(path: path)), storage: storage, context: context, progress: progress)
    }
  }

  init(
    _ shared: SharedFile, storage: WeightStorage, context: KernelContext, progress: ProgressHandler?
  ) throws(LongspanError) {
    let architecture = try shared.file.string("general.architecture")
    guard architecture == "mamba" || architecture == "mamba2" else {
      throw LongspanError(
        .unsupported, "\(shared.name): architecture '\(architecture)' is not supported; mamba and mamba2 are")
    }
    configuration = try MambaConfiguration(shared.file)
    tokenizer = try BPETokenizer(shared.file)
    do throws(LongspanError) {
      chatTemplate = .success(try ChatTemplate(shared.file))
    } catch {
      chatTemplate = .failure(error)
    }
    name = try shared.file.string("general.name", default: shared.name)
    fileByteCount = shared.file.byteCount
    self.context = context
    let names = MambaTensorNames.gguf
    weights = try MambaWeights(
      TensorLoader(source: shared, storage: storage, context: context), names, configuration,
      isTied: !shared.hasTensor(named: names.output), progress: progress)
    try requireEmbeddings(shared.name)
  }

  init(
    _ folder: HuggingFaceFolder, storage: WeightStorage, context: KernelContext, progress: ProgressHandler?
  ) throws(LongspanError) {
    let configuration = try folder.configuration.mamba(fileName: folder.configurationPath)
    self.configuration = configuration
    tokenizer = try folder.tokenizer()
    chatTemplate = folder.chatTemplate()
    name = folder.name
    let source = try folder.weights()
    fileByteCount = source.file.byteCount
    self.context = context
    let names = MambaTensorNames.huggingFace(isDual: configuration.architecture == "mamba2")
    let isTied = folder.configuration.isTied ?? !source.hasTensor(named: names.output)
    weights = try MambaWeights(
      TensorLoader(source: source, storage: storage, context: context), names, configuration, isTied: isTied,
      progress: progress)
    try requireEmbeddings(source.name)
  }

  private func requireEmbeddings(_ fileName: String) throws(LongspanError) {
    guard weights.embedding.rows >= tokenizer.tokenCount else {
      throw LongspanError(
        .invalidFile,
        "\(fileName): \(tokenizer.tokenCount) tokens but only \(weights.embedding.rows) embeddings")
    }
  }

  public var parameterCount: Int {
    let table = weights.isTied ? 0 : weights.embedding.rows * weights.embedding.columns
    return weights.matrices.reduce(weights.vectorCount + table) { $0 + $1.rows * $1.columns }
  }

  public var weightByteCount: Int { weights.matrices.reduce(0) { $0 + $1.ownedByteCount } }

  public func decays(layer: Int) -> [Float] { weights.layers[layer].decay }

  /// Layers and time steps of the model.
  public var stateSpaceShape: StateSpaceShape {
    StateSpaceShape(layers: configuration.layers, channels: configuration.timeStepChannels)
  }

  /// A state before any token.
  public func makeState() throws(LongspanError) -> RecurrentState {
    try RecurrentState(
      RecurrentShape(
        layers: configuration.layers, convolutionRows: configuration.convolutionWidth - 1,
        convolutionChannels: configuration.convolutionChannels,
        stateDimensions: configuration.stateDimensions))
  }

  /// A sequence that has read nothing.
  ///
  /// - Throws: ``/LongspanKernels/LongspanError`` if the options ask for a cache policy or type other than the default:
  ///   there are no keys and values; if they ask for multi-token decoding or self-speculative drafting; and if the time
  ///   step policy does not go with the model.
  public func makeSequence(_ options: SequenceOptions) throws(LongspanError) -> any ModelSequence {
    guard options.policy is DensePolicy else {
      throw LongspanError(
        .unsupported,
        "cache policy '\(options.policy)' is for models with keys and values; \(architecture) keeps a state of constant "
          + "size")
    }
    guard options.cacheType == .f32 else {
      throw LongspanError(
        .unsupported,
        "cache type \(options.cacheType.rawValue) is for models with keys and values; \(architecture) keeps its state in "
          + "f32")
    }
    if let decoding = options.decoding {
      throw LongspanError(
        .unsupported,
        "'\(decoding)' is for models of transformer layers; \(architecture) has state-space layers")
    }
    if let drafting = options.drafting {
      throw LongspanError(
        .unsupported, "\(drafting) is for models that can take tokens back; \(architecture) cannot")
    }
    return try MambaSequence(self, options.timeSteps)
  }

  public var outputWeights: LinearWeights { weights.output }
}
