import Foundation
import Testing

/// The built `longspan` command, which stands beside the tests.
enum Command {
  struct Result {
    let status: Int32
    let output: String
    let errors: String
  }

  static let root = URL(filePath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent()

  /// SwiftPM puts executables into the folder of the test runner's bundle.
  private static var executable: URL {
    get throws {
      let folders = CommandLine.arguments.map { URL(filePath: $0).deletingLastPathComponent() }
      let candidates = folders.map { $0.appending(path: "longspan") }
      let debug = root.appending(path: ".build/debug/longspan")
      return try #require(
        (candidates + [debug]).first { FileManager.default.isExecutableFile(atPath: $0.path) })
    }
  }

  static func run(_ arguments: [String]) throws -> Result {
    let process = Process()
    process.executableURL = try executable
    process.arguments = arguments
    let output = Pipe()
    let errors = Pipe()
    process.standardOutput = output
    process.standardError = errors
    process.standardInput = FileHandle.nullDevice
    try process.run()
    // what these tests make is far below a pipe's capacity on stderr, so reading in turn cannot block
    let text = output.fileHandleForReading.readDataToEndOfFile()
    let messages = errors.fileHandleForReading.readDataToEndOfFile()
    process.waitUntilExit()
    return Result(
      status: process.terminationReason == .exit ? process.terminationStatus : -process.terminationStatus,
      output: String(decoding: text, as: UTF8.self), errors: String(decoding: messages, as: UTF8.self))
  }
}
