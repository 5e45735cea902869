import LongspanKernels

/// One turn of a chat.
public struct ChatMessage: Hashable, Sendable {
  /// Who speaks: "system", "user" or "assistant".
  public var role: String
  /// What is said.
  public var content: String

  /// A message.
  public init(role: String, content: String) {
    self.role = role
    self.content = content
  }
}

/// The way in which a model wants a chat written as one text.
///
/// GGUF files carry a Jinja program for this. Longspan does not run Jinja; it recognizes programs that write
/// ChatML, `<|im_start|>role`, line feed, `content<|im_end|>`, line feed for each message, and takes the default
/// system message from them. Other programs are refused.
public struct ChatTemplate: Hashable, Sendable {
  /// The system message that is put before a chat which does not begin with one, if the template has one.
  public let defaultSystemMessage: String?

  /// Reads the template of a model file, at `tokenizer.chat_template`.
  ///
  /// - Throws: ``/LongspanKernels/LongspanError`` with code `invalidFile` if the file has none, and `unsupported` if it
  ///   is not ChatML.
  public init(_ file: borrowing GGUFFile) throws(LongspanError) {
    try self.init(source: file.string("tokenizer.chat_template"), fileName: file.name)
  }

  /// Recognizes a template from its Jinja source. `fileName` begins the error message.
  init(source: String, fileName: String) throws(LongspanError) {
    // Templates differ in blanks, in quotes, in `message.role` and in '\n' as an escape.
    let normalized = source.filter { !$0.isWhitespace || $0 == "\n" }.replacing("\\n", with: "\n")
      .replacing("\"", with: "'").replacing("message.role", with: "message['role']")
      .replacing("message.content", with: "message['content']")
    let body = "'<|im_start|>'+message['role']+'\n'+message['content']+'<|im_end|>'"
    guard normalized.contains(body) else {
      let beginning = source.prefix(48).map { $0.isNewline ? " " : String($0) }.joined()
      throw LongspanError(
        .unsupported,
        "\(fileName): chat template is not supported; ChatML is, but this one begins with '\(beginning)'")
    }
    self.defaultSystemMessage = Self.defaultSystemMessage(in: source.replacing("\\n", with: "\n"))
  }

  /// Writes a chat as one text, to be encoded with `parsingSpecialTokens: true`.
  ///
  /// - Parameters:
  ///   - messages: The turns in order. The default system message is put before them if there are any and the
  ///     first one's role is not "system".
  ///   - addingGenerationPrompt: Whether the text ends with the beginning of the assistant's next turn.
  public func render(_ messages: [ChatMessage], addingGenerationPrompt: Bool = true) -> String {
    var turns = messages
    if let first = messages.first, first.role != "system", let defaultSystemMessage {
      turns.insert(ChatMessage(role: "system", content: defaultSystemMessage), at: 0)
    }
    var text = ""
    for turn in turns {
      text += "<|im_start|>\(turn.role)\n\(turn.content)<|im_end|>\n"
    }
    if addingGenerationPrompt { text += "<|im_start|>assistant\n" }
    return text
  }

  /// The text of a literal system turn in the template. A turn whose text is computed ends the literal with a
  /// quote straight after the role, and is passed over.
  private static func defaultSystemMessage(in source: String) -> String? {
    for turn in source.split(separator: "<|im_start|>system\n", omittingEmptySubsequences: false).dropFirst()
    {
      guard let quote = turn.first, quote != "'", quote != "\"", let end = turn.firstRange(of: "<|im_end|>")
      else { continue }
      return String(turn[..<end.lowerBound])
    }
    return nil
  }
}
