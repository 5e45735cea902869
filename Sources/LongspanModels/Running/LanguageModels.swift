import LongspanKernels

/// The architectures that Longspan runs, and loading a model of any of them.
public enum LanguageModels {
  /// Architectures of GGUF files, as they name them.
  public static let architectures = ["llama", "mamba", "mamba2"]
  /// Architectures of folders that transformers saved, as `config.json` names them.
  public static let folderArchitectures = ["mamba", "mamba2"]

  /// Opens and loads a GGUF file, or a folder with `config.json`, `tokenizer.json` and `model.safetensors`.
  ///
  /// - Parameters:
  ///   - storage: how the weights of matrix products are held.
  ///   - context: what kernels run with; `nil` makes one with all cores.
  ///   - progress: sees the loading, which takes a second or more for large models.
  /// - Throws: ``/LongspanKernels/LongspanError`` naming the file and what is wrong with it; of an architecture that is
  ///   not supported it lists those that are.
  public static func load(
    path: String, storage: WeightStorage = .native, context: KernelContext? = nil,
    progress: ProgressHandler? = nil
  ) throws(LongspanError) -> any LanguageModel {
    let context = if let context { context } else { try KernelContext() }
    if HuggingFaceFolder.isFolder(path) {
      return try MambaModel(
        HuggingFaceFolder(path), storage: storage, context: context, progress: progress)
    }
    let shared = SharedFile(try GGUFFile(path: path))
    let architecture = try shared.file.string("general.architecture")
    guard architectures.contains(architecture) else {
      throw LongspanError(
        .unsupported,
        "\(shared.name): architecture '\(architecture)' is not supported; "
          + "\(architectures.joined(separator: ", ")) are")
    }
    return architecture == "llama"
      ? try LlamaModel(shared, storage: storage, context: context, progress: progress)
      : try MambaModel(shared, storage: storage, context: context, progress: progress)
  }
}
