import Glibc
import LongspanKernels

/// A model as transformers saves it: a folder with `config.json`, `tokenizer.json` and `model.safetensors`.
struct HuggingFaceFolder {
  let path: String
  let configuration: HuggingFaceConfiguration

  init(_ path: String) throws(LongspanError) {
    self.path = path
    configuration = try JSONFile.decode(HuggingFaceConfiguration.self, path: "\(path)/config.json")
  }

  static func isFolder(_ path: String) -> Bool {
    var status = stat()
    return stat(path, &status) == 0 && status.st_mode & S_IFMT == S_IFDIR
  }

  var configurationPath: String { "\(path)/config.json" }

  /// The folder's name.
  var name: String { path.split(separator: "/").last.map(String.init) ?? path }

  func tokenizer() throws(LongspanError) -> BPETokenizer {
    try BPETokenizer(folder: path, beginning: configuration.beginningOfText, end: configuration.endOfText)
  }

  func weights() throws(LongspanError) -> SafetensorsSource {
    SafetensorsSource(try SafetensorsFile(path: "\(path)/model.safetensors"))
  }

  private struct TokenizerConfiguration: Decodable {
    let template: String?

    private enum CodingKeys: String, CodingKey { case template = "chat_template" }
  }

  /// The template in `tokenizer_config.json`, or the error that says why there is none.
  func chatTemplate() -> Result<ChatTemplate, LongspanError> {
    let file = "\(path)/tokenizer_config.json"
    do throws(LongspanError) {
      guard let template = try JSONFile.decode(TokenizerConfiguration.self, path: file).template else {
        throw LongspanError(.invalidFile, "\(file): has no chat template")
      }
      return .success(try ChatTemplate(source: template, fileName: file))
    } catch {
      return .failure(error)
    }
  }
}
