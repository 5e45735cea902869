import LongspanKernels
import Testing

@testable import LongspanModels

/// Chat templates against what `apply_chat_template` of transformers writes (Tests/Oracles/make_tokenizer.py).
struct TokenizerChatTests {
  private struct Chats: Decodable {
    struct Case: Decodable {
      struct Message: Decodable {
        let role: String
        let content: String
      }
      let name: String
      let messages: [Message]
      let addGenerationPrompt: Bool
      let text: String
      let ids: [Int32]
    }
    let cases: [Case]
  }

  @Test(.enabled(if: TestFiles.runsModelTests, Comment(rawValue: TestFiles.modelTestsComment)))
  func chatsEqualHuggingFace() throws {
    let file = try GGUFFile(path: TestFiles.modelPath)
    let template = try ChatTemplate(file)
    let tokenizer = try BPETokenizer(file)
    let cases = try TestFiles.json(Chats.self, "tokenizer/chat.json").cases
    #expect(cases.count >= 5)
    for chat in cases {
      let messages = chat.messages.map { ChatMessage(role: $0.role, content: $0.content) }
      let text = template.render(messages, addingGenerationPrompt: chat.addGenerationPrompt)
      #expect(text == chat.text, "\(chat.name)")
      #expect(tokenizer.encode(text, parsingSpecialTokens: true) == chat.ids, "\(chat.name)")
    }
  }

  private static let plain =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    + "'<|im_end|>' + '\n'}}{% endfor %}"

  @Test func aTemplateWithoutDefaultAddsNone() throws {
    let template = try ChatTemplate(source: Self.plain, fileName: "m.gguf")
    #expect(template.defaultSystemMessage == nil)
    let messages = [ChatMessage(role: "user", content: "Hi")]
    #expect(
      template.render(messages) == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    #expect(template.render(messages, addingGenerationPrompt: false) == "<|im_start|>user\nHi<|im_end|>\n")
    #expect(template.render([]) == "<|im_start|>assistant\n")
  }

  @Test func spellingsOfChatMLAreRecognized() throws {
    let escaped =
      "{%- if messages[0]['role'] != 'system' %}{{- \"<|im_start|>system\\nBe brief.<|im_end|>\\n\" }}{%- endif %}"
      + "{%- for message in messages %}{{- \"<|im_start|>\" + message.role + \"\\n\" + message.content + "
      + "\"<|im_end|>\" + \"\\n\" }}{%- endfor %}"
    let template = try ChatTemplate(source: escaped, fileName: "m.gguf")
    #expect(template.defaultSystemMessage == "Be brief.")
    // A system turn with a computed text is no default.
    let computed = "{{ '<|im_start|>system\n' + messages[0]['content'] + '<|im_end|>' }}" + Self.plain
    #expect(try ChatTemplate(source: computed, fileName: "m.gguf").defaultSystemMessage == nil)
  }

  @Test(arguments: [
    "{% for message in messages %}[INST] {{ message['content'] }} [/INST]{% endfor %}",
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] | trim + '<|im_end|>' }}",
  ])
  func otherTemplatesAreRefused(source: String) {
    do throws(LongspanError) {
      _ = try ChatTemplate(source: source, fileName: "m.gguf")
      Issue.record("no error")
    } catch {
      #expect(error.code == .unsupported)
      let expected = "m.gguf: chat template is not supported; ChatML is, but this one begins with '"
      #expect(error.message.hasPrefix(expected))
      #expect(error.message.contains(source.prefix(20)))
      #expect(!error.message.contains("\n"))
    }
  }

  @Test func aFileWithoutTemplateIsNamed() throws {
    try TestFiles.withTemporaryFile(GGUFBuilder().build()) { path in
      let file = try GGUFFile(path: path)
      do throws(LongspanError) {
        _ = try ChatTemplate(file)
        Issue.record("no error")
      } catch {
        #expect(
          error.message
            == "model.gguf: has no metadata key 'tokenizer.chat_template' (a string is expected)")
      }
    }
  }
}
