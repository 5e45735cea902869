import LongspanKernels

/// The architectures that Longspan runs, and loading a model of any of them.
public enum LanguageModels {
  /// Architectures, as GGUF files name them.
  public static let architectures = ["llama"]

  /// Opens and loads a GGUF file.
  ///
  /// - Parameters:
  ///   - storage: how the weights of matrix products are held.
  ///   - context: what kernels run with; `nil` makes one with all cores.
  ///   - progress: sees the loading, which takes a second or more for large models.
  /// - Throws: ``LongspanError`` naming the file and what is wrong with it; of an architecture that is not one of
  ///   ``architectures`` it says so.
  public static func load(
    path: String, storage: WeightStorage = .native, context: KernelContext? = nil,
    progress: ProgressHandler? = nil
  ) throws(LongspanError) -> any LanguageModel {
    let context = if let context { context } else { try KernelContext() }
    let shared = SharedFile(try GGUFFile(path: path))
    let architecture = try shared.file.string("general.architecture")
    switch architecture {
    case "llama":
      return try LlamaModel(shared, storage: storage, context: context, progress: progress)
    default:
      throw LongspanError(
        .unsupported,
        "\(shared.file.name): architecture '\(architecture)' is not supported; "
          + "\(architectures.joined(separator: ", ")) are")
    }
  }
}
