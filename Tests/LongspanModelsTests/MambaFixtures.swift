import Foundation
import LongspanKernels
import Testing

@testable import LongspanModels

/// Tiny random Mamba and Mamba-2 models, each as a GGUF file and as a folder, with logits from transformers.
struct MambaFixtures {
  struct Model: Decodable {
    let name: String
    let architecture: String
    let ids: [Int32]
    let folderLogits: OracleFloats.Slice
    let ggufLogits: OracleFloats.Slice
  }

  private struct File: Decodable {
    let models: [Model]
    let text: String
    let textIds: [Int32]
  }

  static let names = ["mamba", "mamba-untied", "mamba2", "mamba2-untied"]
  let text: String
  let textIds: [Int32]
  private let models: [Model]
  private let floats: OracleFloats

  init() throws {
    let file = try TestFiles.json(File.self, "tiny-mamba/tiny-mamba.json")
    models = file.models
    text = file.text
    textIds = file.textIds
    floats = try OracleFloats("tiny-mamba/tiny-mamba.f32")
  }

  static func gguf(_ name: String) -> String { TestFiles.fixture("tiny-mamba/\(name).gguf").path }
  static func folder(_ name: String) -> String { TestFiles.fixture("tiny-mamba/\(name)").path }

  subscript(name: String) -> Model {
    get throws { try #require(models.first { $0.name == name }) }
  }

  func logits(_ slice: OracleFloats.Slice) -> [Float] { Array(floats[slice]) }

  /// A GGUF model with one thread.
  static func load(_ name: String) throws -> MambaModel {
    try MambaModel(path: gguf(name), context: KernelContext(threads: 1))
  }
}

extension MambaSequence {
  /// Hidden states of tokens, `[T, hidden]`, and logits of all of them.
  func logits(_ tokens: [Int32], _ workspace: inout Workspace) throws -> [Float] {
    let hidden = try read(tokens, workspace: &workspace)
    return try model.logits(of: hidden, rows: 0..<hidden.count / model.hiddenSize, workspace: &workspace)
      .array()
  }
}

extension MambaModel {
  /// A sequence that has read nothing.
  func sequence(_ options: SequenceOptions = SequenceOptions()) throws -> MambaSequence {
    try #require(try makeSequence(options) as? MambaSequence)
  }
}
