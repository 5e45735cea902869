import Foundation
import LongspanKernels

/// The language models that come with the package: tiny ones over bytes, trained on 256 tokens at once, that show what becomes
/// of a long text with and without a filter (`Benchmarks/training`).
public enum EmbeddedModel: String, Sendable, CaseIterable {
  /// Mamba.
  case mamba
  /// Mamba-2.
  case mamba2

  /// Its GGUF file, beside the running program, where the package manager puts resources.
  ///
  /// - Throws: ``/LongspanKernels/LongspanError`` if it is not there: a program that was copied without its resources.
  public func path() throws(LongspanError) -> String {
    let folder = URL(fileURLWithPath: "/proc/self/exe").resolvingSymlinksInPath().deletingLastPathComponent()
    let file = folder.appending(path: "longspan_LongspanModels.resources/longspan-\(rawValue).gguf").path
    guard FileManager.default.isReadableFile(atPath: file) else {
      throw LongspanError(
        .unreadableFile,
        "\(file): the model '\(rawValue)' is not beside the program; copy longspan_LongspanModels.resources along"
      )
    }
    return file
  }

  /// The path of a model as people write it: of a file or folder, or the name of an embedded model where there is no such file.
  public static func path(of model: String) throws(LongspanError) -> String {
    guard let embedded = EmbeddedModel(rawValue: model), !FileManager.default.fileExists(atPath: model) else {
      return model
    }
    return try embedded.path()
  }
}
