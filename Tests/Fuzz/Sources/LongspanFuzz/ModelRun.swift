import LongspanKernels
import LongspanModels

/// What targets do with a model, and with the errors of one that is none.
enum ModelRun {
  private static let context = try! KernelContext(threads: 1)

  static func load(_ path: String) throws(LongspanError) -> any LanguageModel {
    try LanguageModels.load(path: path, context: context)
  }

  /// Reads a few tokens.
  static func read(_ model: any LanguageModel) throws(LongspanError) {
    let sequence = try model.makeSequence(SequenceOptions(capacity: 16))
    var workspace = Workspace()
    let logits = try sequence.readPrompt([0, 1, 2], workspace: &workspace)
    if logits.count != model.vocabularySize {
      fail("\(logits.count) logits of \(model.vocabularySize) tokens")
    }
  }

  /// An error says something.
  static func check(_ error: LongspanError) {
    if error.message.isEmpty { fail("an error without a message") }
  }
}
