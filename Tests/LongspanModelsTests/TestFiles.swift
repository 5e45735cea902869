import Foundation

/// Where the tests find their files.
enum TestFiles {
  /// The root of the package, found from this source file.
  static let packageRoot = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()

  /// A file under Tests/Fixtures.
  static func fixture(_ path: String) -> URL {
    packageRoot.appending(path: "Tests/Fixtures/\(path)")
  }

  static func bytes(_ url: URL) throws -> [UInt8] {
    Array(try Data(contentsOf: url))
  }

  /// Decodes a JSON fixture; its snake_case keys become camelCase.
  static func json<Value: Decodable>(_ type: Value.Type, _ path: String) throws -> Value {
    let decoder = JSONDecoder()
    decoder.keyDecodingStrategy = .convertFromSnakeCase
    return try decoder.decode(type, from: Data(contentsOf: fixture(path)))
  }

  /// The novel that the tokenizer and perplexity tests read.
  static let novel = packageRoot.appending(path: "Benchmarks/Data/persuasion.txt")

  /// SmolLM2-135M-Instruct: the path in the environment variable LONGSPAN_MODEL, or where the set-up script
  /// puts the file.
  static let modelPath: String =
    ProcessInfo.processInfo.environment["LONGSPAN_MODEL"]
    ?? packageRoot.appending(path: ".build/models/SmolLM2-135M-Instruct.Q4_1.gguf").path

  /// Whether tests of the real model run. They always do in CI, where a missing model is a failure.
  static let runsModelTests: Bool =
    ProcessInfo.processInfo.environment["CI"] == "true" || FileManager.default.fileExists(atPath: modelPath)

  static let modelTestsComment: String = "needs SmolLM2: set LONGSPAN_MODEL, or let Tests/run.sh fetch it"

  /// Writes `bytes` to a temporary file and calls `body` with its path; the file is gone afterwards.
  static func withTemporaryFile<Result>(
    _ bytes: [UInt8], named name: String = "model.gguf", _ body: (String) throws -> Result
  ) throws -> Result {
    let folder = FileManager.default.temporaryDirectory.appending(path: "longspan-\(UUID().uuidString)")
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    defer { try? FileManager.default.removeItem(at: folder) }
    let file = folder.appending(path: name)
    try Data(bytes).write(to: file)
    return try body(file.path)
  }
}
